"""Other samplers, each in a Python of its own (see `protocol`)."""
