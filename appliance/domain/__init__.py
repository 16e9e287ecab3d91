"""Decides without I/O: takes the facts and `now`, returns a frozen decision with its reason."""
