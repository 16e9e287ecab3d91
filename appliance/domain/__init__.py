"""Decisions, without I/O: the facts and `now` come in, a frozen decision with its reason goes out."""
