"""What the host, the state and the running server look like (facts, read), and what is wrong with it (checks, pure)."""
