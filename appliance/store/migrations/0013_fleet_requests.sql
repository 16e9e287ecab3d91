-- What other exits of the fleet have asked of this one, each under a random number of its own: asked again, it is answered as
-- it was. Those are deleted that are old and of which nothing is live.
CREATE TABLE fleet_ops (
    sender TEXT NOT NULL,  -- the exit that has asked
    op TEXT NOT NULL,
    made_id TEXT,  -- the session or device made for it
    replaced_id TEXT,  -- the session whose key and address that one took over
    answer BLOB,  -- null: it was taken back, or is refused should it come yet
    at INTEGER NOT NULL,
    PRIMARY KEY (sender, op)
) STRICT, WITHOUT ROWID;

CREATE INDEX fleet_ops_by_age ON fleet_ops (at);

-- What is still to be asked of other exits, until they have answered.
CREATE TABLE fleet_intents (
    number INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL,
    operation TEXT NOT NULL,
    request BLOB NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (node_id, operation, request)
) STRICT;
