-- name: read_position
-- Where a partition stands; no row before it was first claimed.
SELECT next_offset, epoch
FROM :"schema".stream_positions
WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s AND partition = %(partition)s;

-- name: other_groups
-- Consumer groups with positions for the topic, unless this one has some: then it has begun, and others are none of its business.
SELECT array_agg(DISTINCT consumer_group ORDER BY consumer_group)
FROM :"schema".stream_positions
WHERE topic = %(topic)s
HAVING NOT coalesce(bool_or(consumer_group = %(consumer_group)s), true);

-- name: claim_partition
-- Make this worker the owner: from here on a write with an older epoch moves nothing. Waits for such a write that is under way.
-- The start counts only if the partition was never claimed, the topic's id only if none is stored: both come back as they stand.
INSERT INTO :"schema".stream_positions AS stored (consumer_group, topic, partition, next_offset, epoch, owner, updated_at, topic_id)
VALUES (%(consumer_group)s, %(topic)s, %(partition)s, %(start)s, 1, %(owner)s, now(), %(topic_id)s)
ON CONFLICT (consumer_group, topic, partition)
DO UPDATE SET epoch = stored.epoch + 1, owner = excluded.owner, updated_at = now(),
              topic_id = coalesce(stored.topic_id, excluded.topic_id)
RETURNING next_offset, epoch, topic_id;

-- name: newest_sent_at
-- The latest sent at of all rows, in milliseconds, rounded up; 0 without rows. Others may have written times that none of ours can be.
-- Refused without the unique index, as write_batch is (see there): the whole table would be read for it.
WITH index_wanted AS (
    INSERT INTO :"schema".user_logins (sent_at, message_id)
    SELECT NULL, NULL WHERE false
    ON CONFLICT (sent_at, message_id) DO NOTHING
)
SELECT ceil(1000 * extract(epoch FROM least(greatest(max(sent_at), timestamptz 'epoch'), timestamptz '10000-01-01')))::bigint
FROM :"schema".user_logins;

-- name: read_replay_key
-- What marks of replayed records verify with.
SELECT key FROM :"schema".replay_key;

-- name: write_batch
-- The whole promise in one statement: the position moves only if it is where this batch begins and the claim is the last one; rows
-- and dead letters go in only if it moved; a message that is there already is left as it is.
-- Columns come as one text each, cut at U+001F (no cleaned value holds a control character); U+0002 alone stands for NULL.
--
-- Rows are looked for one by one (a scalar subquery, which reads an index; LIMIT, since a child of the table may hold a message
-- twice), but for those sent later than all that can be there (`newest_ms`; null: look for each), and those not found are simply
-- inserted: ON CONFLICT takes Postgres half as much again.
-- What is found and holds something else than what came now is left as it is, too, and told: `differing` sees the table as it was
-- before this statement, and is gone into only when fewer rows were written than given. Columns are cut once for both (`given`, one row
-- of arrays): a set of rows that two read would be copied first, which cost Postgres 8 % a row.
-- A row that is there all the same, because another partition wrote it, is refused by a unique index; the batch is sent once more and
-- finds it. For the same reason a refused row becomes no dead letter if its message has a row by now.
-- Without that index nothing may be written: `index_wanted` writes no row, and is refused if its ON CONFLICT has no index.
--
-- Of replayed records (their marks were verified) the dead letters are told: one that became a row is closed, one that failed again is
-- open again with its new reason (`settled`), unless its message has a row by now. It is there, so `letters` adds no second one.
WITH given AS MATERIALIZED (
    SELECT string_to_array(%(user_id)s, E'\x1f') AS user_id,
           string_to_array(%(device_type)s, E'\x1f') AS device_type,
           string_to_array(%(masked_ip)s, E'\x1f', E'\x02') AS masked_ip,
           string_to_array(%(masked_device_id)s, E'\x1f', E'\x02') AS masked_device_id,
           string_to_array(%(locale)s, E'\x1f', E'\x02') AS locale,
           string_to_array(%(app_version)s, E'\x1f')::integer[] AS app_version,
           string_to_array(%(sent_at_ms)s, E'\x1f')::bigint[] AS sent_at_ms,
           string_to_array(%(message_id)s, E'\x1f')::uuid[] AS message_id
), moved AS (
    UPDATE :"schema".stream_positions
    SET next_offset = %(next_offset)s, updated_at = now()
    WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s AND partition = %(partition)s
      AND epoch = %(epoch)s AND next_offset = %(first_offset)s
    RETURNING 1
), written AS (
    INSERT INTO :"schema".user_logins
        (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, sent_at, message_id)
    SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version,
           (sent_at AT TIME ZONE %(time_zone)s)::date, sent_at, message_id
    FROM (
        SELECT unnest(user_id) AS user_id, unnest(device_type) AS device_type, unnest(masked_ip) AS masked_ip,
               unnest(masked_device_id) AS masked_device_id, unnest(locale) AS locale, unnest(app_version) AS app_version,
               to_timestamp(unnest(sent_at_ms) / 1000.0::float8) AS sent_at, unnest(message_id) AS message_id
        FROM given
    ) AS login
    WHERE EXISTS (SELECT FROM moved)
      AND (
          login.sent_at > to_timestamp(%(newest_ms)s / 1000.0::float8)
          OR (
              SELECT true FROM :"schema".user_logins AS known
              WHERE known.sent_at = login.sent_at AND known.message_id = login.message_id LIMIT 1
          ) IS NULL
      )
    RETURNING 1
), differing AS (
    SELECT :"schema".differing_logins(
        array_agg(to_timestamp(sent_at_ms / 1000.0::float8)), array_agg(message_id), array_agg(user_id), array_agg(device_type),
        array_agg(masked_ip), array_agg(masked_device_id), array_agg(locale), array_agg(app_version)
    ) AS message_ids
    FROM (
        SELECT unnest(user_id) AS user_id, unnest(device_type) AS device_type, unnest(masked_ip) AS masked_ip,
               unnest(masked_device_id) AS masked_device_id, unnest(locale) AS locale, unnest(app_version) AS app_version,
               unnest(sent_at_ms) AS sent_at_ms, unnest(message_id) AS message_id
        FROM given
        WHERE EXISTS (SELECT FROM moved)
          AND (SELECT count(*) FROM written) < cardinality(given.message_id)
    ) AS login
    HAVING count(*) > 0
), index_wanted AS (
    INSERT INTO :"schema".user_logins (sent_at, message_id)
    SELECT NULL, NULL WHERE false
    ON CONFLICT (sent_at, message_id) DO NOTHING
), letters AS (
    INSERT INTO :"schema".dead_letters
        (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, field, refusal, sealed)
    SELECT %(consumer_group)s, %(topic)s, %(partition)s, record_offset, message_id, to_timestamp(sent_at_ms / 1000.0::float8),
           reason, field, refusal, sealed
    FROM unnest(
        %(letter_offsets)s::bigint[], %(letter_message_ids)s::uuid[], %(letter_sent_at_ms)s::bigint[],
        %(letter_reasons)s::text[], %(letter_fields)s::text[], %(letter_refusals)s::text[], %(letter_sealed)s::bytea[]
    ) AS letter (record_offset, message_id, sent_at_ms, reason, field, refusal, sealed)
    WHERE EXISTS (SELECT FROM moved)
      AND (
          reason <> 'row_refused'
          OR (
              SELECT true FROM :"schema".user_logins AS known
              WHERE known.sent_at = to_timestamp(letter.sent_at_ms / 1000.0::float8) AND known.message_id = letter.message_id
              LIMIT 1
          ) IS NULL
      )
    ON CONFLICT (sent_at, message_id) DO NOTHING
    RETURNING record_offset
), settled AS (
    SELECT :"schema".settle_replays(
        array_agg(record_offset), array_agg(message_id), array_agg(sent_at_ms), array_agg(attempt),
        array_agg(
            CASE WHEN reason = 'row_refused' AND (
                SELECT true FROM :"schema".user_logins AS known
                WHERE known.sent_at = to_timestamp(replay.sent_at_ms / 1000.0::float8) AND known.message_id = replay.message_id
                LIMIT 1
            ) THEN NULL ELSE reason END
        ),
        array_agg(field), array_agg(refusal)
    ) AS offsets
    FROM unnest(
        %(replay_offsets)s::bigint[], %(replay_message_ids)s::uuid[], %(replay_sent_at_ms)s::bigint[],
        %(replay_attempts)s::integer[], %(replay_reasons)s::text[], %(replay_fields)s::text[], %(replay_refusals)s::text[]
    ) AS replay (record_offset, message_id, sent_at_ms, attempt, reason, field, refusal)
    WHERE EXISTS (SELECT FROM moved)
    HAVING count(*) > 0
)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM written), (SELECT array_agg(record_offset) FROM letters),
       (SELECT message_ids::text[] FROM differing), (SELECT offsets FROM settled);
