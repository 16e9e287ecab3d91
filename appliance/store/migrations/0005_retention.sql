-- To delete lines, and the daily totals they are verified by, some time after they ended.
CREATE INDEX invoice_lines_by_end ON invoice_lines (ended_at) WHERE ended_at IS NOT NULL;

-- To find a token's, an account's or a key's sessions that have not ended, however many have.
CREATE INDEX sessions_live_token ON sessions (token_id) WHERE state = 'live';
CREATE INDEX sessions_unfinished_of ON sessions (account_id) WHERE state <> 'terminated';
CREATE INDEX sessions_unfinished_key ON sessions (public_key) WHERE state <> 'terminated';
