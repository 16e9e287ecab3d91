"""Shows the client's status on a terminal."""
