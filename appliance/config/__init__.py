"""Reads the configuration: TOML and environment variables to frozen settings."""
