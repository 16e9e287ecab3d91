-- What changes with each reading of the counters: one narrow row for each live or closing session, by its address, so that
-- a reading is one write of a small table. A session's own columns have the final figures once it is terminated.
CREATE TABLE peers (
    address_offset INTEGER PRIMARY KEY,
    bytes_in INTEGER NOT NULL CHECK (bytes_in >= 0),
    bytes_out INTEGER NOT NULL CHECK (bytes_out >= 0),
    last_handshake_at INTEGER,
    handshake_seen_ns INTEGER NOT NULL,
    counted_ms INTEGER NOT NULL,
    counted_until_ms INTEGER NOT NULL,
    counted_boot_id TEXT NOT NULL,
    quiet_since_ms INTEGER NOT NULL,
    quiet_boot_id TEXT,  -- null: counted_boot_id
    -- The counters last billed, in one life of the interface; committed with the totals they produced. Null: none are.
    ifindex INTEGER,
    rx_bytes INTEGER,
    tx_bytes INTEGER,
    baseline_boot_id TEXT,  -- null: counted_boot_id
    CHECK ((ifindex IS NULL) = (rx_bytes IS NULL) AND (ifindex IS NULL) = (tx_bytes IS NULL))
) STRICT;

INSERT INTO peers
SELECT s.address_offset, s.bytes_in, s.bytes_out, s.last_handshake_at, s.handshake_seen_ns,
    s.counted_ms, s.counted_until_ms, s.counted_boot_id, s.quiet_since_ms, nullif(s.quiet_boot_id, s.counted_boot_id),
    b.ifindex, b.rx_bytes, b.tx_bytes, nullif(b.boot_id, s.counted_boot_id)
FROM sessions s LEFT JOIN baselines b ON b.public_key = s.public_key
WHERE s.state IN ('live', 'closing') AND s.state <> 'terminated';

DROP TABLE baselines;

CREATE VIEW baselines AS
SELECT s.public_key, coalesce(p.baseline_boot_id, p.counted_boot_id) AS boot_id, p.ifindex, p.rx_bytes, p.tx_bytes
FROM sessions s JOIN peers p ON p.address_offset = s.address_offset
WHERE s.state <> 'terminated' AND s.state IN ('live', 'closing') AND p.ifindex IS NOT NULL;
