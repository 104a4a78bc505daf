"""What users pass in and get back, and how it is checked and shown: no I/O."""
