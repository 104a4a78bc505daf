"""What tests need beside the sandbox: a client that never waits, and the pytest plugin."""
