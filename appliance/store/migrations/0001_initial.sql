-- Instants are milliseconds since the epoch (UTC). Counters are bytes.

CREATE TABLE node (
    -- One row: this exit, and what was last asked of it.
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    drained INTEGER NOT NULL DEFAULT 0 CHECK (drained IN (0, 1)),
    -- Admin commands count `requested` up; the server writes the count it has acted on to `applied`.
    requested INTEGER NOT NULL DEFAULT 0,
    applied INTEGER NOT NULL DEFAULT 0,
    -- What live sessions were told and cannot follow a change of; null until the first start.
    interface TEXT,
    subnet TEXT,
    subnet6 TEXT,
    public_key BLOB
) STRICT;

INSERT INTO node (only_row) VALUES (1);

CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    tier TEXT NOT NULL CHECK (tier IN ('anonymous', 'free', 'paid')),
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;

CREATE UNIQUE INDEX accounts_by_name ON accounts (name) WHERE deleted_at IS NULL;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    -- SHA-256 of the token. The token itself has 192 random bits, so that no salt or slow hash is called for.
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    label TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

CREATE INDEX tokens_by_account ON tokens (account_id);

CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,  -- the order of creation
    id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    tier TEXT NOT NULL CHECK (tier IN ('anonymous', 'free', 'paid')),
    region TEXT NOT NULL,
    public_ip TEXT NOT NULL,
    public_key BLOB NOT NULL CHECK (length(public_key) = 32),
    address_offset INTEGER NOT NULL CHECK (address_offset > 1),
    ipv6 INTEGER NOT NULL CHECK (ipv6 IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('pending', 'live', 'closing', 'terminated')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out INTEGER NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    last_handshake_at INTEGER,
    -- The peer's handshake time as last read from the tunnel; only its change says that a handshake happened.
    handshake_seen_ns INTEGER NOT NULL DEFAULT 0,
    -- CLOCK_BOOTTIME, in the boot named beside it, from which idleness counts.
    quiet_since_ms INTEGER NOT NULL,
    quiet_boot_id TEXT NOT NULL,
    reason TEXT CHECK (
        reason IN ('quota_exceeded', 'expired', 'idle', 'closed', 'replaced', 'admin', 'drained')
    ),
    note TEXT NOT NULL DEFAULT '',
    terminated_at INTEGER,
    CHECK ((state IN ('closing', 'terminated')) = (reason IS NOT NULL)),
    CHECK ((state = 'terminated') = (terminated_at IS NOT NULL))
) STRICT;

CREATE INDEX sessions_by_account ON sessions (account_id, number);
CREATE INDEX sessions_unfinished ON sessions (state) WHERE state <> 'terminated';
CREATE INDEX sessions_by_end ON sessions (terminated_at) WHERE terminated_at IS NOT NULL;

-- A replacement is pending on the key and the address of the session it replaces; two live ones never share either.
CREATE UNIQUE INDEX sessions_live_key ON sessions (public_key) WHERE state IN ('live', 'closing');
CREATE UNIQUE INDEX sessions_pending_key ON sessions (public_key) WHERE state = 'pending';
CREATE UNIQUE INDEX sessions_live_address ON sessions (address_offset) WHERE state IN ('live', 'closing');
CREATE UNIQUE INDEX sessions_pending_address ON sessions (address_offset) WHERE state = 'pending';

CREATE TABLE baselines (
    -- The counters last billed for a peer in one life of the interface. Committed with the totals they produced.
    public_key BLOB PRIMARY KEY CHECK (length(public_key) = 32),
    boot_id TEXT NOT NULL,
    ifindex INTEGER NOT NULL,
    rx_bytes INTEGER NOT NULL,
    tx_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
