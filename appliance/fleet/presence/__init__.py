"""Which exits are there, and which one takes a session."""
