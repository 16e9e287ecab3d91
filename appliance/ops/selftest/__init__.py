"""The self-test: a session through the running API, a tunnel from a network namespace, traffic through the exit.

It sees what a client sees, and leaves nothing behind.
"""
