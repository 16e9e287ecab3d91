-- Session time, usage windows, prices and invoices.

-- The windows of an account. `opened_at` null: none is open. `continued`: it opened when the one before ended.
ALTER TABLE accounts ADD COLUMN bytes_opened_at INTEGER;
ALTER TABLE accounts ADD COLUMN bytes_used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN bytes_continued INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN time_opened_at INTEGER;
ALTER TABLE accounts ADD COLUMN time_used_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN time_continued INTEGER NOT NULL DEFAULT 0;

-- Time counted so far, and the moment (CLOCK_BOOTTIME of the boot named) up to which it is.
ALTER TABLE sessions ADD COLUMN counted_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN counted_until_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN counted_boot_id TEXT NOT NULL DEFAULT '';

-- The rates in force when the session was created; null where no price was configured, or it is not paid.
ALTER TABLE sessions ADD COLUMN currency TEXT;
ALTER TABLE sessions ADD COLUMN millicents_per_minute INTEGER;
ALTER TABLE sessions ADD COLUMN millicents_per_gib INTEGER;

-- The last moment at which the server is known to have been up: after a reboot, time counts up to here.
ALTER TABLE node ADD COLUMN beat_boot_id TEXT NOT NULL DEFAULT '';
ALTER TABLE node ADD COLUMN beat_boot_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN beat_wall_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE usage_days (
    -- What a paid session moved on one day (UTC). Outlives the session: invoices are recalculated from here.
    session_id TEXT NOT NULL,
    day TEXT NOT NULL,  -- 2026-11-24
    counted_ms INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    PRIMARY KEY (session_id, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE invoice_lines (
    -- A paid session's part of one month (UTC). Calculated from the session's totals: what all its lines add up to.
    session_id TEXT NOT NULL,
    month TEXT NOT NULL,  -- 2026-11
    account_id TEXT NOT NULL REFERENCES accounts (id),
    started_at INTEGER NOT NULL,  -- of the part: the session's start, or the month's
    ended_at INTEGER,  -- null while the session runs
    seconds INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    currency TEXT,
    millicents_per_minute INTEGER,
    millicents_per_gib INTEGER,
    time_millicents INTEGER,
    bytes_millicents INTEGER,
    PRIMARY KEY (session_id, month)
) STRICT, WITHOUT ROWID;

CREATE INDEX invoice_lines_by_account ON invoice_lines (account_id, month);
