-- What several exits behind one API agree on: kept on the hub, followed by the others. Without rows on a single exit.

CREATE TABLE fleet (
    -- One row, while this host is in a fleet.
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    role TEXT NOT NULL CHECK (role IN ('hub', 'spoke')),
    node_id TEXT NOT NULL,  -- this host's
    gen INTEGER NOT NULL,
    -- The hub's change that a spoke has followed up to; '' before the first.
    acc_rev INTEGER NOT NULL DEFAULT 0,
    acc_mark TEXT NOT NULL DEFAULT '',
    -- When a spoke last heard that it has all changes; null: never.
    heard_wall_ms INTEGER,
    heard_boot_ms INTEGER,
    heard_boot_id TEXT,
    CHECK ((heard_wall_ms IS NULL) = (heard_boot_ms IS NULL) AND (heard_wall_ms IS NULL) = (heard_boot_id IS NULL))
) STRICT;

CREATE TABLE fleet_changes (
    -- On the hub: which rows have changed, the newest last. The mark tells a change from one that had the same number
    -- before the store was rolled back.
    rev INTEGER PRIMARY KEY AUTOINCREMENT,
    mark TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('start', 'account', 'token', 'member', 'terms')),
    id TEXT NOT NULL
) STRICT;

CREATE TABLE fleet_members (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    region TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('hub', 'spoke')),
    nkey TEXT NOT NULL,
    xkey BLOB NOT NULL CHECK (length(xkey) = 32),
    joined_at INTEGER NOT NULL,
    left_at INTEGER
) STRICT;

CREATE UNIQUE INDEX fleet_members_by_name ON fleet_members (name) WHERE left_at IS NULL;
CREATE UNIQUE INDEX fleet_members_by_nkey ON fleet_members (nkey) WHERE left_at IS NULL;

CREATE TABLE fleet_invites (
    hash TEXT PRIMARY KEY,  -- what stands for the invitation's secret
    role TEXT NOT NULL CHECK (role IN ('hub', 'spoke')),
    made_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_by TEXT,  -- the NKEY of the host that has joined with it
    used_at INTEGER,
    CHECK ((used_by IS NULL) = (used_at IS NULL))
) STRICT;

CREATE TABLE fleet_terms (
    -- One row: the hub's tiers and prices, as JSON.
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    terms TEXT NOT NULL
) STRICT;
