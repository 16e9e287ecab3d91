"""Backs up an exit's state and restores it."""
