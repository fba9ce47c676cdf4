-- name: add_reveal_audit
-- Who and when are the server's word: the privacy officer's role may not even name those columns.
INSERT INTO :"schema".reveal_audit (reason, field, tokens) VALUES (%(reason)s, %(field)s, %(tokens)s);

-- name: count_dead_letters
-- How many of each reason, the most frequent first.
SELECT reason, count(*) FROM :"schema".dead_letters
WHERE %(reason)s::text IS NULL OR reason = %(reason)s
GROUP BY reason ORDER BY count(*) DESC, reason;

-- name: newest_dead_letters
-- The last ones, newest first; read from the end of the index dead_letters_failed_at. Never the sealed record.
SELECT failed_at, reason, field, topic, partition, record_offset, message_id, sent_at, resolution FROM :"schema".dead_letters
WHERE %(reason)s::text IS NULL OR reason = %(reason)s
ORDER BY failed_at DESC, message_id DESC LIMIT %(limit)s;

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
-- does not count: a stopped partition is claimed every 15 seconds.
UPDATE :"schema".stream_positions
SET next_offset = %(next_offset)s, epoch = epoch + 1, owner = 'positions reset by ' || session_user, updated_at = now(),
    topic_id = NULL
WHERE consumer_group = %(consumer_group)s AND topic = %(topic)s AND partition = %(partition)s
  AND next_offset = %(found_next_offset)s
RETURNING next_offset, epoch;

-- name: add_operator_action
-- In the transaction of what was done. Who and when are the server's word: the operator's role may not even name those columns.
INSERT INTO :"schema".operator_actions (action, target, details, reason)
VALUES (%(action)s, %(target)s, %(details)s::jsonb, %(reason)s);

-- name: operator_actions
-- The last ones on what begins so, newest first.
SELECT acted_at, who, action, target, details::text, reason FROM :"schema".operator_actions
WHERE starts_with(action, %(action)s)
ORDER BY id DESC LIMIT %(limit)s;
