"""How hosts come into a fleet and leave it."""
