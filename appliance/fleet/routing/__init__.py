"""How this host's API reaches sessions and devices of other exits."""
