-- The inbox of a session's client, what is let in through it, and what is held.

ALTER TABLE peer ADD COLUMN inbox TEXT;                               -- the path of the client's inbox socket
ALTER TABLE peer ADD COLUMN bypasses INTEGER NOT NULL DEFAULT 0;      -- it bypasses permission prompts
ALTER TABLE peer ADD COLUMN inbound TEXT NOT NULL DEFAULT 'match';    -- what is let in from other sessions
ALTER TABLE peer ADD COLUMN hooked_by TEXT;                           -- the agent process whose prompt hook has run
ALTER TABLE peer ADD COLUMN hook_token BLOB;                          -- SHA-256 of the token that its hook shows
ALTER TABLE peer ADD COLUMN hook_proves_all INTEGER NOT NULL DEFAULT 0;  -- it runs for every message that is let in

ALTER TABLE message ADD COLUMN passes INTEGER NOT NULL DEFAULT 0;     -- let in whatever the recipient's permission mode
ALTER TABLE message ADD COLUMN bypassed INTEGER NOT NULL DEFAULT 0;   -- its sender bypassed permission prompts
ALTER TABLE message ADD COLUMN held_at INTEGER;                       -- since when the recipient's controls keep it back
ALTER TABLE message ADD COLUMN held_by INTEGER NOT NULL DEFAULT 0;    -- 1 mode, 2 hold, 3 refuse
ALTER TABLE message ADD COLUMN released INTEGER NOT NULL DEFAULT 0;   -- the user let it in
