"""Putting the appliance on a host as a service, taking it off again, and moving it to another version."""
