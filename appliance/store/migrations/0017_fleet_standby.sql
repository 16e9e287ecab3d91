-- A host that is to be the hub when that one is lost, generations of hubs, and what a hub that was replaced had changed alone.

-- Where others dial a hub or a standby, as HOST:PORT; '' of one that is neither, or whose hub has not told it yet.
ALTER TABLE fleet_members ADD COLUMN dialled TEXT NOT NULL DEFAULT '';
-- A hub of this version may have told it before, when nothing here could store it: its rows are all read anew.
UPDATE fleet SET acc_rev = 0, acc_mark = '' WHERE role = 'spoke';

-- On a hub: the last change of the generation before that this one has; 0 and '': there was none.
ALTER TABLE fleet ADD COLUMN base_rev INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fleet ADD COLUMN base_mark TEXT NOT NULL DEFAULT '';

CREATE TABLE fleet_conflicts (
    kind TEXT NOT NULL CHECK (kind IN ('account', 'token', 'member')),
    id TEXT NOT NULL,
    row TEXT,  -- as JSON; null: it was removed
    noted_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- One more role. Rows keep their form, and triggers theirs.
-- https://www.sqlite.org/lang_altertable.html#making_other_kinds_of_table_schema_changes
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '(''hub'', ''spoke'')', '(''hub'', ''standby'', ''spoke'')')
WHERE type = 'table' AND name IN ('fleet', 'fleet_members');
PRAGMA writable_schema = RESET;

-- Fails where the text was not what it is known to be; see 0009.
CREATE TABLE roles_added (times INTEGER CHECK (times = 2)) STRICT;
INSERT INTO roles_added
SELECT count(*) FROM sqlite_schema
WHERE name IN ('fleet', 'fleet_members') AND sql LIKE '%(''hub'', ''standby'', ''spoke'')%';
DROP TABLE roles_added;
