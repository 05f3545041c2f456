-- The container whose socket a session came through.

ALTER TABLE peer ADD COLUMN container TEXT;
