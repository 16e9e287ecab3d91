"""Several exits behind one API. Loaded only on an exit that is in a fleet."""
