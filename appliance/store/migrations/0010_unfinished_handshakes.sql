-- Bytes of a device's handshakes that came to nothing: its next session has them.
ALTER TABLE devices ADD COLUMN unfinished_rx INTEGER NOT NULL DEFAULT 0 CHECK (unfinished_rx >= 0);
ALTER TABLE devices ADD COLUMN unfinished_tx INTEGER NOT NULL DEFAULT 0 CHECK (unfinished_tx >= 0);
