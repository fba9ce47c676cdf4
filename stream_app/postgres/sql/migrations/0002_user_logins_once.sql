-- One row for each message. A migration of its own: on a long table it takes a while, and so it holds no lock that keeps readers
-- out (a loader that still writes waits).
CREATE UNIQUE INDEX IF NOT EXISTS user_logins_sent_at_message_id ON :"schema".user_logins (sent_at, message_id);
