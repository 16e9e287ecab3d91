"""wg-appliance: one self-hosted WireGuard exit, its session API, store and tunnel in one process."""

__version__ = "0.1.0"
