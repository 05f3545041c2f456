-- Peers, the sessions they are known by, and their mailboxes. Times are milliseconds since the Unix epoch.

CREATE TABLE peer (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    legacy         INTEGER NOT NULL DEFAULT 0,   -- speaks the reference's HTTP API
    secret         BLOB,                         -- SHA-256 of the secret that proves a request comes from this peer
    instance       TEXT NOT NULL DEFAULT '',     -- the process that serves the session now
    pid            INTEGER,
    pid_started    INTEGER,
    host_pid       INTEGER,                      -- the claude process
    host_started   INTEGER,
    cwd            TEXT NOT NULL,
    git            TEXT,                         -- JSON
    tty            TEXT,
    channel        INTEGER NOT NULL DEFAULT 0,   -- the start flags name our channel
    delivery       TEXT NOT NULL DEFAULT 'auto', -- CLAUDE_PEERS_DELIVERY
    proved_by      TEXT,                         -- the host process whose channel has proved itself
    proved_at      INTEGER,
    summary        TEXT NOT NULL DEFAULT '',
    summary_source TEXT NOT NULL DEFAULT 'none',
    registered_at  INTEGER NOT NULL,
    last_seen      INTEGER NOT NULL,
    ended          INTEGER NOT NULL DEFAULT 0    -- it said goodbye
) STRICT;

CREATE TABLE session (
    session_id TEXT PRIMARY KEY,
    peer       TEXT NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT;

-- AUTOINCREMENT: a number once given is never given again, so that a cursor stays true after old messages were removed.
CREATE TABLE message (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    tag          TEXT NOT NULL,
    from_peer    TEXT NOT NULL,
    to_peer      TEXT NOT NULL,
    text         TEXT NOT NULL,
    reply_to     TEXT,
    key          TEXT,                           -- the sender's idempotency key
    sent_at      INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        INTEGER NOT NULL DEFAULT 0,     -- 0 queued, 1 offered, 2 delivered, 3 expired
    waiting      INTEGER NOT NULL DEFAULT 1,     -- some route still has to hand it over
    again        INTEGER NOT NULL DEFAULT 0,     -- 0 fresh, 1 pushed into an unproven channel, 2 announced
    lease        TEXT,                           -- who is handing it over right now
    handed       INTEGER NOT NULL DEFAULT 0,     -- how often it may have been shown, the present lease included
    pushed_by    TEXT,                           -- the host process into whose channel it was pushed
    route        TEXT,
    offered_at   INTEGER,
    delivered_at INTEGER,
    expired_at   INTEGER
) STRICT;

-- Partial indexes: they hold only what is still under way, so a long history costs nothing.
CREATE UNIQUE INDEX message_key ON message (from_peer, key) WHERE key IS NOT NULL;
CREATE INDEX message_waiting ON message (to_peer, seq) WHERE waiting = 1;
CREATE INDEX message_fresh ON message (to_peer, lease) WHERE waiting = 1 AND again = 0;
CREATE INDEX message_offered ON message (to_peer, from_peer) WHERE state = 1;
CREATE INDEX message_expiry ON message (expires_at) WHERE state < 2;
