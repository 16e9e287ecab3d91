"""Tests the exit end to end: a session through the running API, a tunnel from a network namespace, traffic through it.

The self-test sees what a client sees, and removes everything that it made.
"""
