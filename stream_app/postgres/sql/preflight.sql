-- name: session
-- Where this is, and whether it can be written to.
SELECT current_database()::text, pg_is_in_recovery(), current_setting('transaction_read_only') = 'on';

-- name: applied_migrations
SELECT array_agg(name) FROM :"schema".stream_migrations;

-- name: keys_in_use
-- The ids of the keys that masked and sealed what was written last, with the field of each; null without one.
SELECT array_agg(field), array_agg(key_id) FROM :"schema".keys_in_use();
