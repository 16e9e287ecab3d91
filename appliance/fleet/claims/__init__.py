"""Whose a client's key is, and a device's name."""
