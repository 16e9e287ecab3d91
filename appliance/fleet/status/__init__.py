"""How the fleet stands, for commands, doctor and Prometheus."""
