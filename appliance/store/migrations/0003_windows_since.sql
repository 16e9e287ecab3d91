-- Where the window before an open one ended, in ms since the epoch; 0: there was none. What came before that instant
-- is over, also when it is counted late. Until now: whether the open window began at that instant.
ALTER TABLE accounts RENAME COLUMN bytes_continued TO bytes_since;
ALTER TABLE accounts RENAME COLUMN time_continued TO time_since;
UPDATE accounts SET
    bytes_since = CASE WHEN bytes_since = 1 THEN bytes_opened_at ELSE 0 END,
    time_since = CASE WHEN time_since = 1 THEN time_opened_at ELSE 0 END;
