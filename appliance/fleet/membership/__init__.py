"""Who the hosts of a fleet are."""
