"""Queries of the store, one file a noun."""
