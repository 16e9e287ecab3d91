"""Brings the client's tunnel up and takes it down."""
