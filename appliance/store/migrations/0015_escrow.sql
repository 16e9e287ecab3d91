-- What an exit of a fleet is lent of its accounts' limits, as it was last told; empty on a single exit. `free` is lent to no
-- exit; `others`: what was used, or is allowed, elsewhere. The windows are those that opened at `..._opened`, 0: none.
CREATE TABLE escrow (
    account_id TEXT PRIMARY KEY,
    -- The last request is (e, q): e rises when the store is restored from a backup. q is the last that was stored.
    e INTEGER NOT NULL,
    q INTEGER NOT NULL,
    known INTEGER NOT NULL CHECK (known IN (0, 1)),  -- 1: the hub has answered once
    bytes_opened INTEGER NOT NULL,
    bytes_granted INTEGER NOT NULL,
    bytes_had INTEGER NOT NULL,  -- what was left of it when the hub last answered
    bytes_free INTEGER NOT NULL,
    bytes_others INTEGER NOT NULL,
    time_opened INTEGER NOT NULL,
    time_granted INTEGER NOT NULL,
    time_had INTEGER NOT NULL,
    time_free INTEGER NOT NULL,
    time_others INTEGER NOT NULL,
    live_held INTEGER NOT NULL,
    live_free INTEGER NOT NULL,
    live_others INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
