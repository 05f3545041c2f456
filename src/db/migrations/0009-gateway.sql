-- Peers of other machines, for which a gateway speaks, and the mail to and from them. `link` is NULL for all other mail. To another machine:
-- 1 while it waits to be forwarded, then minus the time when it was. From another machine: 10 plus the state last told there, and 0 when
-- there is no more to tell.

ALTER TABLE peer ADD COLUMN machine TEXT;
ALTER TABLE message ADD COLUMN link INTEGER;
CREATE INDEX message_link ON message (link) WHERE link > 0;
