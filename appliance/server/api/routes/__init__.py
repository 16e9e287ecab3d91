"""Routes of the session API, one file a noun."""
