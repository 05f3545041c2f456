-- The answers to a message, for conversations.

CREATE INDEX message_reply ON message (reply_to) WHERE reply_to IS NOT NULL;
