"""Speaks netlink: generic messages, constants and events."""
