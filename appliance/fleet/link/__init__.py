"""The connection of a host to its hubs."""
