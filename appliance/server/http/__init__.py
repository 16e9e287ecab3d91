"""Serves HTTP: uvicorn, connection limits and TLS."""
