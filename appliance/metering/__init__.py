"""Counts the bytes and seconds of sessions."""
