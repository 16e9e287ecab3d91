-- Devices: named peers that stay, each with a key and an address of its own until it is removed. A removed one stays for
-- the sessions that name it, and keeps its name, key and address from nobody.
CREATE TABLE devices (
    number INTEGER PRIMARY KEY,  -- the order of creation
    id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,  -- what names are compared by
    region TEXT NOT NULL,
    public_key BLOB NOT NULL CHECK (length(public_key) = 32),
    address_offset INTEGER NOT NULL CHECK (address_offset > 1),
    ipv6 INTEGER NOT NULL CHECK (ipv6 IN (0, 1)),
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    endpoint TEXT NOT NULL,  -- what its file says: host and port
    -- Of its sessions that have ended.
    bytes_in INTEGER NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out INTEGER NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    counted_ms INTEGER NOT NULL DEFAULT 0 CHECK (counted_ms >= 0),
    last_handshake_at INTEGER,
    -- What the row in peers had when its last session ended, for the next: the handshake seen, and the counters last
    -- billed, in one life of the interface. Null: none are. Nothing of this changes while the device is idle.
    handshake_seen_ns INTEGER NOT NULL DEFAULT 0,
    ifindex INTEGER,
    rx_bytes INTEGER,
    tx_bytes INTEGER,
    baseline_boot_id TEXT,
    CHECK ((ifindex IS NULL) = (rx_bytes IS NULL) AND (ifindex IS NULL) = (tx_bytes IS NULL)
        AND (ifindex IS NULL) = (baseline_boot_id IS NULL))
) STRICT;

CREATE UNIQUE INDEX devices_by_name ON devices (account_id, name_key) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX devices_by_key ON devices (public_key) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX devices_by_address ON devices (address_offset) WHERE removed_at IS NULL;
CREATE INDEX devices_by_account ON devices (account_id, number) WHERE removed_at IS NULL;
CREATE INDEX devices_by_removal ON devices (removed_at) WHERE removed_at IS NOT NULL;

-- The device that a session is of; null: none.
ALTER TABLE sessions ADD COLUMN device_id TEXT REFERENCES devices (id);
CREATE INDEX sessions_by_device ON sessions (device_id) WHERE device_id IS NOT NULL;

-- More reasons for an end. SQLite changes no CHECK, and a new table takes 25 s and three times the room where there are
-- a million sessions. Rows keep their form, and what was allowed stays so: the table's text is all that has to change.
-- https://www.sqlite.org/lang_altertable.html#making_other_kinds_of_table_schema_changes
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, '''drained''', '''drained'', ''live_session_limit'', ''paused'', ''rotated'', ''account_ended''')
WHERE type = 'table' AND name = 'sessions';
-- Takes the schema anew from its text, and ends the permission.
PRAGMA writable_schema = RESET;

-- Where the text was not what it is known to be, fails, and all of the above with it. What makes a table also tells other
-- processes that the schema is another.
CREATE TABLE reasons_added (times INTEGER CHECK (times = 1)) STRICT;
INSERT INTO reasons_added
SELECT count(*) FROM sqlite_schema WHERE name = 'sessions' AND sql LIKE '%''drained'', ''live_session_limit'', %';
DROP TABLE reasons_added;
