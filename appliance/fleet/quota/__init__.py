"""Limits that hold over all exits of a fleet: what each may use of an account's windows is lent to it."""
