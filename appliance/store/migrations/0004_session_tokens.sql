-- The token that a session was opened with; null for those opened before this was noted.
ALTER TABLE sessions ADD COLUMN token_id TEXT;
