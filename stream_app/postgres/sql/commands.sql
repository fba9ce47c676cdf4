-- name: add_reveal_audit
-- Who and when are the server's word: the privacy officer's role may not even name those columns.
INSERT INTO :"schema".reveal_audit (reason, field, tokens) VALUES (%(reason)s, %(field)s, %(tokens)s);

-- name: newest_reveals
SELECT id, revealed_at, who, reason, field, tokens FROM :"schema".reveal_audit ORDER BY id DESC LIMIT %(limit)s;

-- name: count_dead_letters
-- How many of each reason, the most frequent first.
SELECT reason, count(*) FROM :"schema".dead_letters
WHERE %(reason)s::text IS NULL OR reason = %(reason)s
GROUP BY reason ORDER BY count(*) DESC, reason;

-- name: newest_dead_letters
-- The last ones, newest first; read from the end of the index dead_letters_failed_at. Never the sealed record.
SELECT failed_at, reason, field, topic, partition, record_offset, message_id, sent_at, resolution, refusal, replays, replay_ended
FROM :"schema".dead_letters
WHERE %(reason)s::text IS NULL OR reason = %(reason)s
ORDER BY failed_at DESC, message_id DESC LIMIT %(limit)s;

-- name: choose_dead_letters
-- Those that fit, in the order of the topic, without what is sealed: that is read a few at a time.
SELECT sent_at, message_id::text, topic, partition, record_offset, reason, field, failed_at, resolution, resolved_at, replays,
       replays_failed, replay_ended, octet_length(sealed)
FROM :"schema".dead_letters
WHERE (%(topic)s::text IS NULL OR topic = %(topic)s)
  AND (%(message_ids)s::uuid[] IS NULL OR message_id = ANY(%(message_ids)s::uuid[]))
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(field)s::text IS NULL OR field = %(field)s)
  AND (%(since)s::timestamptz IS NULL OR failed_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR failed_at < %(until)s)
  AND (resolution IS NULL OR NOT %(only_open)s)
ORDER BY topic, partition, record_offset, sent_at, message_id
LIMIT %(limit)s;

-- name: sealed_dead_letters
-- What is sealed of these, in any order.
SELECT letter.sent_at, letter.message_id::text, letter.sealed
FROM unnest(%(sent_at)s::timestamptz[], %(message_ids)s::uuid[]) AS chosen (sent_at, message_id)
JOIN :"schema".dead_letters AS letter ON letter.sent_at = chosen.sent_at AND letter.message_id = chosen.message_id;

-- name: begin_replays
-- Before anything is sent: from here on a worker knows the record for the last replay of its dead letter. One that was closed, or that
-- somebody else has begun to replay since it was chosen, is left out.
UPDATE :"schema".dead_letters AS letter
SET replays = letter.replays + 1, replay_ended = NULL
FROM unnest(%(sent_at)s::timestamptz[], %(message_ids)s::uuid[], %(replays)s::integer[]) AS chosen (sent_at, message_id, replays)
WHERE letter.sent_at = chosen.sent_at AND letter.message_id = chosen.message_id
  AND letter.resolution IS NULL AND letter.replays = chosen.replays
RETURNING letter.sent_at, letter.message_id::text, letter.replays;

-- name: end_replays
-- After Kafka has acknowledged them. A worker may have been quicker: what it found out stays.
UPDATE :"schema".dead_letters AS letter
SET resolution = 'replayed', resolved_at = now()
FROM unnest(%(sent_at)s::timestamptz[], %(message_ids)s::uuid[], %(replays)s::integer[]) AS sent (sent_at, message_id, replays)
WHERE letter.sent_at = sent.sent_at AND letter.message_id = sent.message_id
  AND letter.replays = sent.replays AND letter.resolution IS NULL AND letter.replay_ended IS NULL;

-- name: discard_dead_letters
-- Those that are still open and that nobody has begun to replay since they were chosen.
UPDATE :"schema".dead_letters AS letter
SET resolution = 'discarded', resolved_at = now()
FROM unnest(%(sent_at)s::timestamptz[], %(message_ids)s::uuid[], %(replays)s::integer[]) AS chosen (sent_at, message_id, replays)
WHERE letter.sent_at = chosen.sent_at AND letter.message_id = chosen.message_id
  AND letter.resolution IS NULL AND letter.replays = chosen.replays
RETURNING letter.sent_at, letter.message_id::text;

-- name: replay_key
-- What marks of replayed records are signed with.
SELECT key FROM :"schema".replay_key;

-- name: purge_dead_letters
-- Some of those that were closed before then; how many.
SELECT :"schema".purge_dead_letters(%(older_than)s, %(most)s);

-- name: all_positions
-- Where every partition of every consumer group stands.
SELECT consumer_group, topic, partition, next_offset, epoch, owner, updated_at FROM :"schema".stream_positions
ORDER BY consumer_group, topic, partition;

-- name: positions_of_partition
-- Where one partition stands, for one consumer group or all that keep a position for it.
SELECT consumer_group, topic, partition, next_offset, epoch, owner, updated_at FROM :"schema".stream_positions
WHERE topic = %(topic)s AND partition = %(partition)s AND (%(consumer_group)s::text IS NULL OR consumer_group = %(consumer_group)s)
ORDER BY consumer_group;

-- name: reset_position
-- Set a position, for the topic that the next claim finds. The epoch goes up: a worker that holds the partition is fenced at its next
-- write, and claims anew. Nothing happens if the position has moved since it was looked at. A claim alone, which leaves it where it is,
-- does not count: a stopped partition is claimed every 15 seconds. The line about it is the same statement.
WITH reset AS (
    UPDATE :"schema".stream_positions
    SET next_offset = %(next_offset)s, epoch = epoch + 1, owner = 'positions reset by ' || session_user, updated_at = now(),
        topic_id = NULL
    WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s AND partition = %(partition)s
      AND next_offset = %(found_next_offset)s
    RETURNING next_offset, epoch
), told AS (
    INSERT INTO :"schema".operator_actions (action, target, details, reason)
    SELECT 'positions reset', %(topic)s || '/' || %(partition)s::text || ' of ' || %(consumer_group)s,
           %(details)s::jsonb, %(reason)s
    FROM reset
)
SELECT next_offset, epoch FROM reset;

-- name: adopt_positions
-- Give a group that has no position for a topic those of another one, which keeps its own; their epoch goes up, so that what a worker of
-- that group has in hand is fenced. Nothing happens if the group has a position by now. The line about it is the same statement.
WITH other AS (
    UPDATE :"schema".stream_positions
    SET epoch = epoch + 1, owner = 'positions adopt by ' || session_user, updated_at = now()
    WHERE consumer_group = %(other_group)s AND topic = %(topic)s AND NOT EXISTS (
        SELECT FROM :"schema".stream_positions AS own WHERE own.consumer_group = %(consumer_group)s AND own.topic = %(topic)s
    )
    RETURNING partition, next_offset, topic_id
), adopted AS (
    INSERT INTO :"schema".stream_positions (consumer_group, topic, partition, next_offset, epoch, owner, topic_id)
    SELECT %(consumer_group)s, %(topic)s, partition, next_offset, 1, 'positions adopt by ' || session_user, topic_id FROM other
    RETURNING partition, next_offset
), told AS (
    INSERT INTO :"schema".operator_actions (action, target, details, reason)
    SELECT 'positions adopt', %(topic)s || ' of ' || %(other_group)s || ' by ' || %(consumer_group)s,
           jsonb_object_agg(partition, next_offset), %(reason)s
    FROM adopted
    HAVING count(*) > 0
)
SELECT partition, next_offset FROM adopted ORDER BY partition;

-- name: add_operator_action
-- In the transaction of what was done. Who and when are the server's word: the operator's role may not even name those columns.
INSERT INTO :"schema".operator_actions (action, target, details, reason)
VALUES (%(action)s, %(target)s, %(details)s::jsonb, %(reason)s);

-- name: operator_actions
-- The last ones on what begins so, newest first.
SELECT acted_at, who, action, target, details::text, reason FROM :"schema".operator_actions
WHERE starts_with(action, %(action)s)
ORDER BY id DESC LIMIT %(limit)s;
