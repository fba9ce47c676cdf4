-- What the migrations add up to: the state of a database that `faust -A stream_app migrate` has just set up, for reading.
-- A test proves that both end equal; a change goes into a new migration and in here.
-- `:"schema"` is POSTGRES_SCHEMA, as psql takes it: `\set schema public`. Everything of ours is named with it, since no session of
-- ours looks for a name anywhere but in pg_catalog (docs/decisions/0018-names-are-looked-for-in-pg-catalog-alone.md).

-- One row for each login. The first seven columns are given: names and types are what analysts' queries rest on.
CREATE TABLE :"schema".user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date,
    -- Null in rows that were here before the stream was: when they were sent is not known, and a guess would look like a fact.
    sent_at          timestamptz,
    message_id       uuid
);

COMMENT ON COLUMN :"schema".user_logins.sent_at IS 'when the app''s message entered the queue; null in rows older than the stream';
COMMENT ON COLUMN :"schema".user_logins.message_id IS 'the queue''s id of the message; null in rows older than the stream';

-- The guarantee rests on it: a message that comes again adds no row. Null and null are no conflict, so old rows don't meet.
-- sent_at first: rows arrive nearly in its order, so the index grows at one end, and reads by time use it.
CREATE UNIQUE INDEX user_logins_sent_at_message_id ON :"schema".user_logins (sent_at, message_id);

-- Where each partition stands. It moves in the statement that writes the rows: the two can't part.
-- Half of each page is kept free: the row changes with each batch, and so changes within its page, without touching the index.
CREATE TABLE :"schema".stream_positions (
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    next_offset    bigint      NOT NULL,
    epoch          bigint      NOT NULL,
    owner          text        NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    topic_id       text,
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);

COMMENT ON COLUMN :"schema".stream_positions.next_offset IS 'the next offset to read';
COMMENT ON COLUMN :"schema".stream_positions.epoch IS 'raised by each claim: a write with an older epoch is refused';
COMMENT ON COLUMN :"schema".stream_positions.topic_id
    IS 'Kafka''s id of the topic that the position belongs to; null: of the one that is there';

-- Records that can't become rows. Sealed: the worker that writes them can't open them.
CREATE TABLE :"schema".dead_letters (
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    record_offset  bigint      NOT NULL,
    message_id     uuid        NOT NULL,
    sent_at        timestamptz NOT NULL,
    reason         text        NOT NULL,
    field          text,
    sealed         bytea       NOT NULL,
    failed_at      timestamptz NOT NULL DEFAULT now(),
    resolution     text,
    resolved_at    timestamptz,
    replays        integer     NOT NULL DEFAULT 0,
    replays_failed integer     NOT NULL DEFAULT 0,
    replay_ended   text,
    refusal        text,
    PRIMARY KEY (sent_at, message_id)
);

-- Ciphertext does not compress: it isn't tried.
ALTER TABLE :"schema".dead_letters ALTER COLUMN sealed SET STORAGE EXTERNAL;

COMMENT ON COLUMN :"schema".dead_letters.record_offset
    IS 'the offset of its first delivery; a message that comes again adds no dead letter';
COMMENT ON COLUMN :"schema".dead_letters.resolution IS 'what became of it; null while it is open';
COMMENT ON COLUMN :"schema".dead_letters.resolved_at IS 'when it was closed; null while it is open';
COMMENT ON COLUMN :"schema".dead_letters.replays IS 'how often a replay was begun';
COMMENT ON COLUMN :"schema".dead_letters.replays_failed IS 'how often a replayed record became a dead letter again';
COMMENT ON COLUMN :"schema".dead_letters.replay_ended
    IS 'what the last replay became: row, dead_letter; null while nothing is known of it';
COMMENT ON COLUMN :"schema".dead_letters.refusal
    IS 'of a row that Postgres refused: SQLSTATE, table, column, constraint, trigger, as far as Postgres named them';

CREATE INDEX dead_letters_failed_at ON :"schema".dead_letters (failed_at, message_id);

-- Of the marks of replayed records: the command signs with it, workers verify.
CREATE TABLE :"schema".replay_key (
    only_one boolean PRIMARY KEY DEFAULT true CONSTRAINT replay_key_only_one CHECK (only_one),
    key      bytea   NOT NULL
);

INSERT INTO :"schema".replay_key (key) SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- Who opened how many masked values of which field, and why. Never a value. Nobody but its owner can make it forget.
CREATE TABLE :"schema".reveal_audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revealed_at timestamptz NOT NULL DEFAULT now(),
    who         text        NOT NULL DEFAULT session_user,
    reason      text        NOT NULL CONSTRAINT reveal_audit_reason_given CHECK (reason ~ '[^[:space:]]'),
    field       text        NOT NULL,
    tokens      integer     NOT NULL CONSTRAINT reveal_audit_tokens_counted CHECK (tokens > 0)
);

COMMENT ON COLUMN :"schema".reveal_audit.who IS 'the login user, as the server knows it';
COMMENT ON COLUMN :"schema".reveal_audit.tokens IS 'how many tokens were asked for';

CREATE FUNCTION :"schema".reveal_audit_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%s is append-only: %s is refused', TG_TABLE_NAME, TG_OP);
END
$$;

CREATE TRIGGER reveal_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON :"schema".reveal_audit
    FOR EACH STATEMENT EXECUTE FUNCTION :"schema".reveal_audit_refuse_change();

-- What operators have done, and why. Nobody but its owner can make it forget.
CREATE TABLE :"schema".operator_actions (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at timestamptz NOT NULL DEFAULT now(),
    who      text        NOT NULL DEFAULT session_user,
    action   text        NOT NULL,
    target   text        NOT NULL,
    details  jsonb       NOT NULL DEFAULT '{}',
    reason   text        NOT NULL CONSTRAINT operator_actions_reason_given CHECK (reason ~ '[^[:space:]]'),
    CONSTRAINT operator_actions_printable CHECK (who || action || target || reason !~ '[\x01-\x1f\x7f-\x9f]')
);

COMMENT ON COLUMN :"schema".operator_actions.who IS 'the login user, as the server knows it';
COMMENT ON COLUMN :"schema".operator_actions.action IS 'the command';
COMMENT ON COLUMN :"schema".operator_actions.target IS 'what it was done to';
COMMENT ON COLUMN :"schema".operator_actions.details IS 'from what to what, how many; no value of a record';

CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON :"schema".operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION :"schema".reveal_audit_refuse_change();

-- What people read on a terminal holds nothing that a terminal obeys, whoever wrote it and however. Not valid for rows that are there:
-- they stay as they are, and commands show such characters as escapes.
ALTER TABLE :"schema".reveal_audit
    ADD CONSTRAINT reveal_audit_printable CHECK (who || reason || field !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
ALTER TABLE :"schema".dead_letters
    ADD CONSTRAINT dead_letters_printable
    CHECK (consumer_group || topic || reason || coalesce(field, '') || coalesce(resolution, '') !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
ALTER TABLE :"schema".dead_letters
    ADD CONSTRAINT dead_letters_refusal_printable CHECK (refusal !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;
ALTER TABLE :"schema".stream_positions
    ADD CONSTRAINT stream_positions_printable CHECK (consumer_group || topic || owner !~ '[\x01-\x1f\x7f-\x9f]') NOT VALID;

-- One role for each job; login users are made members: GRANT stream_analyst TO somebody. None of them owns a table.
CREATE ROLE stream_writer NOLOGIN;
CREATE ROLE stream_operator NOLOGIN;
CREATE ROLE stream_analyst NOLOGIN;
CREATE ROLE stream_privacy_officer NOLOGIN;
CREATE ROLE stream_monitor NOLOGIN;

GRANT USAGE ON SCHEMA :"schema" TO stream_writer, stream_operator, stream_analyst, stream_privacy_officer, stream_monitor;

-- The worker reads only which messages are there, and its position.
GRANT INSERT, SELECT (sent_at, message_id) ON :"schema".user_logins TO stream_writer;
GRANT INSERT, SELECT (sent_at, message_id, record_offset) ON :"schema".dead_letters TO stream_writer;
GRANT SELECT, INSERT, UPDATE (next_offset, epoch, owner, updated_at, topic_id) ON :"schema".stream_positions TO stream_writer;

GRANT SELECT, UPDATE (resolution, resolved_at, replays, replay_ended) ON :"schema".dead_letters TO stream_operator;
GRANT SELECT (key) ON :"schema".replay_key TO stream_writer, stream_operator;
GRANT SELECT, UPDATE (next_offset, epoch, owner, updated_at, topic_id) ON :"schema".stream_positions TO stream_operator;

GRANT SELECT ON :"schema".user_logins TO stream_analyst;

-- Not the columns who and revealed_at: those are the server's word.
GRANT SELECT, INSERT (reason, field, tokens) ON :"schema".reveal_audit TO stream_privacy_officer;
GRANT SELECT, INSERT (action, target, details, reason) ON :"schema".operator_actions TO stream_operator;
GRANT INSERT (consumer_group, topic, partition, next_offset, epoch, owner, topic_id) ON :"schema".stream_positions TO stream_operator;

-- Positions and counts: no record's content, no reason for a reveal, nobody's name.
GRANT SELECT (consumer_group, topic, partition, next_offset, updated_at) ON :"schema".stream_positions TO stream_monitor;
GRANT SELECT (reason, resolution, failed_at) ON :"schema".dead_letters TO stream_monitor;
GRANT SELECT (action, target, details) ON :"schema".operator_actions TO stream_monitor;
GRANT SELECT (field, tokens) ON :"schema".reveal_audit TO stream_monitor;

-- Which of these messages' rows hold something else than this: what the worker asks of messages that came again, without a right to
-- read any row's content. With the owner's rights, therefore, and it answers with ids that the worker knows.
-- Its text is made here since psql puts its variables into no body of a function. Quoted, and not BEGIN ATOMIC: that would keep the
-- table's owner from ever changing a column's type.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.differing_logins(
            sent_at timestamptz[], message_id uuid[], user_id text[], device_type text[], masked_ip text[], masked_device_id text[],
            locale text[], app_version integer[]
        ) RETURNS uuid[]
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        -- Tokens of two keys can't be compared: only those that begin alike, with a key's id.
        BEGIN
            RETURN (
                SELECT array_agg(came.message_id)
                FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS came (
                    sent_at, message_id, user_id, device_type, masked_ip, masked_device_id, locale, app_version
                )
                JOIN %1$I.user_logins AS known ON known.sent_at = came.sent_at AND known.message_id = came.message_id
                WHERE known.user_id IS DISTINCT FROM came.user_id
                   OR known.device_type IS DISTINCT FROM came.device_type
                   OR known.locale IS DISTINCT FROM came.locale
                   OR known.app_version IS DISTINCT FROM came.app_version
                   OR (known.masked_ip <> came.masked_ip AND left(known.masked_ip, 6) = left(came.masked_ip, 6))
                   OR (known.masked_device_id <> came.masked_device_id
                       AND left(known.masked_device_id, 6) = left(came.masked_device_id, 6))
            );
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".differing_logins FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".differing_logins TO stream_writer;

-- Ids of the keys that masked the newest rows and sealed the newest open dead letters: by them a worker that starts sees whether it has
-- the keysets of those that write here. It may read no masked value and nothing sealed; with the owner's rights this gives it ids alone.
-- A token says its key: base64url of 0x01 and the key's id, four bytes. What doesn't look like one is passed over: rows that are older
-- than the stream, fields that are masked in another way.
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.keys_in_use() RETURNS TABLE (field text, key_id bigint)
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            WITH login AS MATERIALIZED (
                SELECT masked_ip, masked_device_id FROM %1$I.user_logins WHERE sent_at IS NOT NULL ORDER BY sent_at DESC LIMIT 100
            ), letter AS MATERIALIZED (
                SELECT substring(sealed FROM 1 FOR 5) AS beginning, resolution FROM %1$I.dead_letters
                ORDER BY failed_at DESC, message_id DESC LIMIT 100
            ), token AS (
                SELECT 'ip' AS field, masked_ip::text AS text FROM login
                UNION ALL SELECT 'device_id', masked_device_id::text FROM login
            ), prefix AS (
                SELECT token.field, decode(translate(left(token.text, 8), '-_', '+/'), 'base64') AS bytes
                FROM token WHERE token.text ~ '^A[Q-Za-f][A-Za-z0-9_-]{32,}$'
                UNION ALL SELECT 'dead letter', beginning FROM letter
                WHERE resolution IS NULL AND length(beginning) = 5 AND get_byte(beginning, 0) = 1
            )
            SELECT DISTINCT prefix.field, ('x' || encode(substring(prefix.bytes FROM 2 FOR 4), 'hex'))::bit(32)::bigint FROM prefix;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".keys_in_use FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".keys_in_use TO stream_writer;

-- The usual questions of analysts: which devices, which addresses have several users shared on one day. Functions with two times, and no
-- views: a view reads the whole table for them, and keeps the table's owner from changing a column's type. They have their caller's
-- rights, and read the part of the table that the index on sent_at gives them: the plan is made for the two times each time, and rows that
-- were sent together lie together, which Postgres doesn't count on for an index of two columns (hence random_page_cost).
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.shared_devices_by_day(since timestamptz, until timestamptz DEFAULT 'infinity')
        RETURNS TABLE (day date, masked_device_id text, logins bigint, users bigint)
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
        SET random_page_cost = 1.1 AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            SELECT one.create_date::date, one.token, sum(one.logins)::bigint, count(*)
            FROM (
                SELECT login.create_date, login.masked_device_id::text AS token, login.user_id, count(*) AS logins
                FROM %1$I.user_logins AS login
                WHERE login.sent_at >= $1 AND login.sent_at < $2 AND login.masked_device_id IS NOT NULL
                GROUP BY 1, 2, 3
            ) AS one
            GROUP BY 1, 2 HAVING count(*) > 1;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
    EXECUTE format($create$
        CREATE FUNCTION %1$I.shared_addresses_by_day(since timestamptz, until timestamptz DEFAULT 'infinity')
        RETURNS TABLE (day date, masked_ip text, logins bigint, users bigint)
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
        SET random_page_cost = 1.1 AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            SELECT one.create_date::date, one.token, sum(one.logins)::bigint, count(*)
            FROM (
                SELECT login.create_date, login.masked_ip::text AS token, login.user_id, count(*) AS logins
                FROM %1$I.user_logins AS login
                WHERE login.sent_at >= $1 AND login.sent_at < $2 AND login.masked_ip IS NOT NULL
                GROUP BY 1, 2, 3
            ) AS one
            GROUP BY 1, 2 HAVING count(*) > 1;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

COMMENT ON FUNCTION :"schema".shared_devices_by_day
    IS 'devices of several users on one day, of logins sent at or after since and before until';
COMMENT ON FUNCTION :"schema".shared_addresses_by_day
    IS 'addresses of several users on one day, of logins sent at or after since and before until';

REVOKE EXECUTE ON FUNCTION :"schema".shared_devices_by_day FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION :"schema".shared_addresses_by_day FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".shared_devices_by_day TO stream_analyst;
GRANT EXECUTE ON FUNCTION :"schema".shared_addresses_by_day TO stream_analyst;

-- Functions with the owner's rights: a worker may change a dead letter in this one way, an operator remove those that are closed.
-- Their text is made here since psql puts its variables into no body of a function.
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

-- The migrations that were applied.
CREATE TABLE :"schema".stream_migrations (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text        NOT NULL DEFAULT session_user
);

-- For `migrate --check`, run by whoever waits for the tables.
GRANT SELECT ON :"schema".stream_migrations
    TO stream_writer, stream_operator, stream_analyst, stream_privacy_officer, stream_monitor;
