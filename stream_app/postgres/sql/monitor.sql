-- name: monitor_positions
-- Where one consumer group stands in one topic.
SELECT partition, next_offset FROM :"schema".stream_positions WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s;

-- name: monitor_open_dead_letters
-- How many are open, by reason, and for how many seconds the oldest one is there, by the server's clock.
SELECT reason, count(*), greatest(0, extract(epoch FROM now()) - extract(epoch FROM min(failed_at))) FROM :"schema".dead_letters
WHERE resolution IS NULL GROUP BY reason;

-- name: monitor_records_skipped
-- Over how many offsets operators have moved positions forward. No topic's name has a slash. What an operator writes by hand may not be
-- a number, or none that an offset can be.
SELECT coalesce(sum(CASE WHEN jsonb_typeof(details -> 'skipped') = 'number'
                    AND (details ->> 'skipped')::numeric BETWEEN 0 AND 9223372036854775807
                    THEN (details ->> 'skipped')::numeric END), 0)
FROM :"schema".operator_actions
WHERE action = 'positions reset' AND left(target, length(%(topic)s) + 1) = %(topic)s || '/'
  AND right(target, length(%(consumer_group)s) + 4) = ' of ' || %(consumer_group)s;

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
