"""Installs the appliance on a host as a service, upgrades it, and uninstalls it."""
