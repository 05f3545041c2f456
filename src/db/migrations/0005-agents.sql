-- The coding agent of a session, and the door that lets messages into it.

ALTER TABLE peer ADD COLUMN agent TEXT;            -- its short name: codex
ALTER TABLE peer ADD COLUMN agent_version TEXT;
ALTER TABLE peer ADD COLUMN door TEXT;             -- inbox, plugin or daemon; of Claude Code, `inbox` has the path instead
