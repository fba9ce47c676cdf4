-- name: monitor_positions
-- Where one consumer group stands in one topic.
SELECT partition, next_offset FROM :"schema".stream_positions WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s;

-- name: monitor_open_dead_letters
-- How many are open, by reason.
SELECT reason, count(*) FROM :"schema".dead_letters WHERE resolution IS NULL GROUP BY reason;

-- name: monitor_reveals
-- How often values of each field were asked for, and how many.
SELECT field, count(*), sum(tokens)::bigint FROM :"schema".reveal_audit GROUP BY field;

-- name: monitor_table_bytes
-- What the tables take, with indexes and what is stored beside them.
SELECT name, pg_total_relation_size((quote_ident(:'schema') || '.' || name)::regclass)
FROM unnest(ARRAY['user_logins', 'dead_letters', 'stream_positions']) AS name;

-- name: monitor_sessions
-- Connections of all clients, and how many there may be. Their number is open to everybody, what they do is not.
SELECT (SELECT sum(numbackends)::integer FROM pg_stat_database), current_setting('max_connections')::integer;
