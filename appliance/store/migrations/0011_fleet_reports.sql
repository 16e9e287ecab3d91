-- What an exit of a fleet has told the hub of its sessions, and what a hub was told. Empty outside a fleet: the triggers
-- that fill the first part are made when the exit comes into one.

CREATE TABLE fleet_reporting (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The last batch of reports: counts up, and a random mark beside it.
    batch INTEGER NOT NULL DEFAULT 0,
    mark TEXT NOT NULL DEFAULT '',
    -- 1: the store was restored from a backup, so that the hub may have been told what it lacks.
    restored INTEGER NOT NULL DEFAULT 0 CHECK (restored IN (0, 1)),
    -- Ended sessions with smaller numbers are yet to be noted.
    older_than INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE fleet_reports (
    session_id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    -- Counts up with what is to be told; `sent` is what the hub has acknowledged.
    v INTEGER NOT NULL DEFAULT 1,
    sent INTEGER NOT NULL DEFAULT 0,
    sent_bytes INTEGER NOT NULL DEFAULT 0,
    urgent INTEGER NOT NULL DEFAULT 1 CHECK (urgent IN (0, 1)),  -- it began or ended, or was deleted
    gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),  -- the store no longer has the session, or never had
    turn INTEGER NOT NULL DEFAULT 0,
    epoch TEXT NOT NULL DEFAULT (lower(hex(randomblob(8)))),
    basis TEXT,  -- what the epoch began from, as JSON; null: from nothing
    -- The session's own figures as last told, and up to when its time was counted.
    bytes_in INTEGER NOT NULL DEFAULT 0,
    bytes_out INTEGER NOT NULL DEFAULT 0,
    counted_ms INTEGER NOT NULL DEFAULT 0,
    until_ms INTEGER NOT NULL DEFAULT 0,
    until_boot_id TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE INDEX fleet_reports_unsent ON fleet_reports (urgent) WHERE v > sent;
CREATE INDEX fleet_reports_by_creation ON fleet_reports (created_at);

-- The last counters of lives of sessions' peers that have ended; the present ones are in `peers`.
CREATE TABLE fleet_lives (
    session_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    ifindex INTEGER NOT NULL,
    rx_bytes INTEGER NOT NULL,
    tx_bytes INTEGER NOT NULL,
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;

-- Sums of what was acknowledged, by the month (UTC) in which sessions were created.
CREATE TABLE fleet_report_months (
    month TEXT PRIMARY KEY,
    sessions INTEGER NOT NULL,
    sum_v INTEGER NOT NULL,
    sum_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What follows is a hub's.

CREATE TABLE fleet_nodes (
    node TEXT PRIMARY KEY,
    batch INTEGER NOT NULL DEFAULT 0,
    mark TEXT NOT NULL DEFAULT '',
    -- Of its last mark: all before this instant is reported.
    upto INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_sessions (
    session_id TEXT NOT NULL,
    node TEXT NOT NULL,
    turn INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    v INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    account_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    counted_ms INTEGER NOT NULL,
    said TEXT NOT NULL,  -- the rest of the report of the highest v, as JSON
    PRIMARY KEY (session_id, node)
) STRICT, WITHOUT ROWID;

CREATE INDEX fleet_sessions_by_account ON fleet_sessions (account_id, created_at, session_id);
CREATE INDEX fleet_sessions_by_batch ON fleet_sessions (node, batch);
CREATE INDEX fleet_sessions_by_creation ON fleet_sessions (node, created_at);

CREATE TABLE fleet_lines (
    session_id TEXT NOT NULL,
    node TEXT NOT NULL,
    month TEXT NOT NULL,  -- 2026-11
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    seconds INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    currency TEXT,
    millicents_per_minute INTEGER,
    millicents_per_gib INTEGER,
    time_millicents INTEGER,
    bytes_millicents INTEGER,
    PRIMARY KEY (session_id, node, month)
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_months (
    node TEXT NOT NULL,
    month TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    sum_v INTEGER NOT NULL,
    sum_bytes INTEGER NOT NULL,
    PRIMARY KEY (node, month)
) STRICT, WITHOUT ROWID;
