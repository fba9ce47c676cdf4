-- What is known of a dead letter's replays (docs/decisions/0030-dead-letters-come-back.md).
ALTER TABLE :"schema".dead_letters
    ADD COLUMN resolved_at    timestamptz,
    ADD COLUMN replays        integer NOT NULL DEFAULT 0,
    ADD COLUMN replays_failed integer NOT NULL DEFAULT 0,
    ADD COLUMN replay_ended   text;

COMMENT ON COLUMN :"schema".dead_letters.resolved_at IS 'when it was closed; null while it is open';
COMMENT ON COLUMN :"schema".dead_letters.replays IS 'how often a replay was begun';
COMMENT ON COLUMN :"schema".dead_letters.replays_failed IS 'how often a replayed record became a dead letter again';
COMMENT ON COLUMN :"schema".dead_letters.replay_ended
    IS 'what the last replay became: row, dead_letter; null while nothing is known of it';

GRANT UPDATE (resolution, resolved_at, replays, replay_ended) ON :"schema".dead_letters TO stream_operator;

-- Of the marks of replayed records: the command signs with it, workers verify.
CREATE TABLE :"schema".replay_key (
    only_one boolean PRIMARY KEY DEFAULT true CONSTRAINT replay_key_only_one CHECK (only_one),
    key      bytea   NOT NULL
);

INSERT INTO :"schema".replay_key (key) SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

GRANT SELECT (key) ON :"schema".replay_key TO stream_writer, stream_operator;

-- Functions with the owner's rights: a worker may change a dead letter in this one way, an operator remove those that are closed.
-- Their text is made here since psql puts its variables into no body of a function.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.settle_replays(
            record_offsets bigint[], message_ids uuid[], sent_at_ms bigint[], attempts integer[], reasons text[], fields text[],
            refusals text[]
        ) RETURNS bigint[]
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        DECLARE
            open_again bigint[];
        BEGIN
            -- Without a reason: there is a row. Also of an earlier replay: the message has its row.
            UPDATE %1$I.dead_letters AS letter
            SET replay_ended = 'row', resolution = coalesce(letter.resolution, 'replayed'),
                resolved_at = coalesce(letter.resolved_at, now())
            FROM unnest($2, $3, $4, $5) AS replay (message_id, sent_at_ms, attempt, reason)
            WHERE replay.reason IS NULL AND letter.message_id = replay.message_id
              AND letter.sent_at = to_timestamp(replay.sent_at_ms / 1000.0::float8) AND replay.attempt <= letter.replays;
            -- Only the last replay opens it again, once, and not what an operator has discarded. What is sealed stays as it is.
            WITH reopened AS (
                UPDATE %1$I.dead_letters AS letter
                SET reason = replay.reason, field = replay.field, refusal = replay.refusal, failed_at = now(), resolution = NULL,
                    resolved_at = NULL, replays_failed = letter.replays_failed + 1, replay_ended = 'dead_letter'
                FROM unnest($1, $2, $3, $4, $5, $6, $7) AS replay (
                    record_offset, message_id, sent_at_ms, attempt, reason, field, refusal
                )
                WHERE replay.reason IS NOT NULL AND letter.message_id = replay.message_id
                  AND letter.sent_at = to_timestamp(replay.sent_at_ms / 1000.0::float8) AND replay.attempt = letter.replays
                  AND letter.replay_ended IS NULL AND letter.resolution IS DISTINCT FROM 'discarded'
                RETURNING replay.record_offset
            )
            SELECT array_agg(record_offset) INTO open_again FROM reopened;
            RETURN open_again;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
    EXECUTE format($create$
        CREATE FUNCTION %1$I.purge_dead_letters(older_than timestamptz, most integer) RETURNS integer
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        DECLARE
            removed integer;
        BEGIN
            -- Closed before resolved_at was there: the time of the failure stands in.
            DELETE FROM %1$I.dead_letters AS letter
            USING (
                SELECT sent_at, message_id FROM %1$I.dead_letters
                WHERE resolution IS NOT NULL AND coalesce(resolved_at, failed_at) < $1 LIMIT $2
            ) AS old
            WHERE letter.sent_at = old.sent_at AND letter.message_id = old.message_id
              AND letter.resolution IS NOT NULL AND coalesce(letter.resolved_at, letter.failed_at) < $1;
            GET DIAGNOSTICS removed = ROW_COUNT;
            RETURN removed;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".settle_replays FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION :"schema".purge_dead_letters FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".settle_replays TO stream_writer;
GRANT EXECUTE ON FUNCTION :"schema".purge_dead_letters TO stream_operator;
