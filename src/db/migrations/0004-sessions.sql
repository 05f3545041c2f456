-- Several peers may be one session: one that is resumed while it still runs elsewhere gets a mailbox of its own there.

CREATE TABLE session_of_peer (
    session_id TEXT NOT NULL,
    peer       TEXT NOT NULL,
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (session_id, peer)
) STRICT;

INSERT INTO session_of_peer SELECT session_id, peer, seen_at FROM session;
DROP TABLE session;
ALTER TABLE session_of_peer RENAME TO session;
