"""What one exit asks of another, sealed."""
