-- The expired messages: few beside a long history, so that a list of them need not look at it all.
--
-- The schema has to fit into the first page of the database (db/header.rs). The long runs of spaces in its text make room.

PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(replace(sql, '    ', ' '), '  ', ' '), '  ', ' ')
    WHERE type = 'table' AND name IN ('peer', 'message');
PRAGMA writable_schema = RESET;

CREATE INDEX message_expired ON message (seq) WHERE state > 2;
