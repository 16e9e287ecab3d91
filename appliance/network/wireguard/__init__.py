"""Holds WireGuard's keys, devices, requests and configuration files."""
