-- The expired messages: few beside a long history, so that a list of them need not look at it all.

CREATE INDEX message_expired ON message (seq) WHERE state > 2;
