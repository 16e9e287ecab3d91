"""Stores the desired state in SQLite, one file of queries per noun; everything else is made to match it."""
