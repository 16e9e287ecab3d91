"""A hub's nats-server: its configuration, certificates and process."""
