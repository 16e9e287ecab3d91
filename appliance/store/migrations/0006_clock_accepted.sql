-- A moment whose wall time an admin has said to be right, until the server has taken it over; null: none.
ALTER TABLE node ADD COLUMN right_wall_ms INTEGER;
ALTER TABLE node ADD COLUMN right_boot_ms INTEGER;
ALTER TABLE node ADD COLUMN right_boot_id TEXT;
