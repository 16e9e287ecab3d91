"""What an exit does for others' APIs."""
