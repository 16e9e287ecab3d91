"""Serves requests that add, show and change devices."""
