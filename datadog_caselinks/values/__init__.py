"""The values that users pass in and get back, their checks, and the texts of messages. Without I/O."""
