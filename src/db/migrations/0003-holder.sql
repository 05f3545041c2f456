-- Who holds a message, in columns of its own. Until now `lease` was `s:INSTANCE` for the stream of a process, `t:INSTANCE:LEASE` for
-- a take. A lease of a process that serves the peer no more is void, as is one of a hook (`h:`): the message waits again, and counts
-- as possibly shown.

ALTER TABLE message ADD COLUMN holder INTEGER NOT NULL DEFAULT 0;   -- 0 nobody, 1 the stream of `instance`, 2 its take `lease`
ALTER TABLE message ADD COLUMN instance TEXT;                       -- the process that holds it

DROP INDEX message_fresh;

UPDATE message SET holder = 1, instance = peer.instance, lease = NULL
FROM peer WHERE waiting = 1 AND peer.id = to_peer AND lease = 's:' || peer.instance;

UPDATE message SET holder = 2, instance = peer.instance, lease = substr(lease, length(peer.instance) + 4)
FROM peer WHERE waiting = 1 AND peer.id = to_peer AND substr(lease, 1, length(peer.instance) + 3) = 't:' || peer.instance || ':';

UPDATE message SET lease = NULL WHERE waiting = 1 AND holder = 0 AND lease IS NOT NULL;

CREATE INDEX message_fresh ON message (to_peer, holder, instance, lease) WHERE waiting = 1 AND again = 0;
