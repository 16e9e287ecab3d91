"""Speaks an exit's HTTP API as a client."""
