-- Until when a session's tunnel can carry: CLOCK_BOOTTIME of counted_boot_id, 0: it cannot before the next handshake. Time
-- up to then counts, and no other.
ALTER TABLE peers ADD COLUMN carries_until_ms INTEGER NOT NULL DEFAULT 0;

-- Until now all time counted: what has passed up to the last heartbeat still does. So does what the last handshake allows.
UPDATE peers SET carries_until_ms = max(
    iif(counted_boot_id = (SELECT beat_boot_id FROM node), (SELECT beat_boot_ms FROM node), 0),
    iif(last_handshake_at IS NOT NULL AND coalesce(quiet_boot_id, counted_boot_id) = counted_boot_id,
        quiet_since_ms + 180000, 0));
