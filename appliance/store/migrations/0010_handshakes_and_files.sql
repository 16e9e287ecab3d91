-- Bytes of a device's handshakes that came to nothing: its next session has them.
ALTER TABLE devices ADD COLUMN unfinished_rx INTEGER NOT NULL DEFAULT 0 CHECK (unfinished_rx >= 0);
ALTER TABLE devices ADD COLUMN unfinished_tx INTEGER NOT NULL DEFAULT 0 CHECK (unfinished_tx >= 0);
-- What a device's file says that a renumbering has made wrong: 1 its address, 2 that of IPv6, 4 the server's key.
ALTER TABLE devices ADD COLUMN outdated INTEGER NOT NULL DEFAULT 0 CHECK (outdated BETWEEN 0 AND 7);
-- Whether its peer has been put into the tunnel: before that, one that stands there with its key is of another device, which
-- was removed, and has counters that were billed.
ALTER TABLE devices ADD COLUMN installed INTEGER NOT NULL DEFAULT 1 CHECK (installed IN (0, 1));
