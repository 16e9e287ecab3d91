"""The store: SQLite, one file of queries a noun. It holds the desired state; everything else is made to match it."""
