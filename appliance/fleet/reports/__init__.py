"""What exits report of their sessions, and what the hub makes of it."""
