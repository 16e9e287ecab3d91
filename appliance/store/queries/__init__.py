"""Queries the store, one file per noun."""
