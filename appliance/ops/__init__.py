"""Installs, checks, tests and backs up an exit."""
