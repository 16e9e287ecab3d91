-- Lives of peers' counters have marks, by which a hub and an exit whose store went back in time mean the same one. Empty:
-- the life that began with the session, or one from before this.
ALTER TABLE fleet_reports ADD COLUMN life TEXT NOT NULL DEFAULT '';  -- the mark of the present one
ALTER TABLE fleet_lives ADD COLUMN mark TEXT NOT NULL DEFAULT '';

-- The last batch of which the hub has acknowledged a report: of the later ones it may have none, or another store's.
ALTER TABLE fleet_reporting ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;
UPDATE fleet_reporting SET acknowledged = batch;

-- An exit in a fleet makes them anew when it starts.
DROP TRIGGER IF EXISTS fleet_session_ended;
DROP TRIGGER IF EXISTS fleet_session_brought_back;
DROP TRIGGER IF EXISTS fleet_life_ended;
