-- The token that a session was opened with; null for those opened before this was noted.
ALTER TABLE sessions ADD COLUMN token_id TEXT;
-- An admin's words for the session's client. `note` was the operators' own before, and stays theirs in older rows.
ALTER TABLE sessions ADD COLUMN told TEXT NOT NULL DEFAULT '';
