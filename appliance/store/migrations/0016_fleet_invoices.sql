-- On a hub: invoices and use of an account over all exits, from what they report. Empty outside a fleet.
ALTER TABLE fleet_lines ADD COLUMN account_id TEXT NOT NULL DEFAULT '';
UPDATE fleet_lines SET account_id = coalesce((
    SELECT s.account_id FROM fleet_sessions s WHERE s.session_id = fleet_lines.session_id AND s.node = fleet_lines.node), '');
CREATE INDEX fleet_lines_of_account ON fleet_lines (account_id, month);

-- The batch of the mark that `upto` is of: one of a later batch holds, also if it is of an earlier instant.
ALTER TABLE fleet_nodes ADD COLUMN upto_batch INTEGER NOT NULL DEFAULT 0;

-- An account's windows on each exit, as last reported.
CREATE TABLE fleet_windows (
    account_id TEXT NOT NULL,
    node TEXT NOT NULL,
    batch INTEGER NOT NULL,
    bytes_opened_at INTEGER,
    bytes_used INTEGER NOT NULL,
    time_opened_at INTEGER,
    time_used_ms INTEGER NOT NULL,
    PRIMARY KEY (account_id, node)
) STRICT, WITHOUT ROWID;

-- No query uses it.
DROP INDEX fleet_sessions_by_account;
