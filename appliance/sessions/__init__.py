"""Opens, ends and enforces sessions."""
