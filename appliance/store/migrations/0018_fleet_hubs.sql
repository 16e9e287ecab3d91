-- Three hubs or more: which they are is known of the members' roles, and since when, of this.

-- Since when the hubs are these, in ms; 0: of a host that has not been one of several. It names where their nats-servers
-- keep what they keep together, so that other hubs begin with nothing.
ALTER TABLE fleet_members ADD COLUMN hub_since INTEGER NOT NULL DEFAULT 0;
-- A hub of this version may have told it before, when nothing here could store it; see 0017.
UPDATE fleet SET acc_rev = 0, acc_mark = '' WHERE role <> 'hub';

-- On a hub: the last change that a second hub is known to have, and of which generation; 0 and '': none.
ALTER TABLE fleet ADD COLUMN kept_gen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fleet ADD COLUMN kept_rev INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fleet ADD COLUMN kept_mark TEXT NOT NULL DEFAULT '';
