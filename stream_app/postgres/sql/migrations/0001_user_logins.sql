-- user_logins with the columns that say which message a row is. A table that is there already keeps its rows as they are: both new
-- columns are null in them, which costs nothing, however long the table is, and claims nothing about when they were sent.
CREATE TABLE IF NOT EXISTS :"schema".user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
);

-- A table of that name with other columns is somebody's: it is left alone. One that demands more than the stream gives would turn
-- each record into a dead letter: said now, not then.
SELECT set_config('login_stream.schema', :'schema', false); -- psql puts its variables into no body of a function
DO $$
DECLARE
    ours     regclass := (quote_ident(current_setting('login_stream.schema')) || '.user_logins')::regclass;
    problems text;
BEGIN
    SELECT string_agg(problem, '; ' ORDER BY place, problem) INTO problems
    FROM (
        SELECT given.place, format('%s should be %s and is %s', given.name, given.type,
                                   coalesce(format_type(found.atttypid, found.atttypmod), 'missing')) AS problem
        FROM unnest(
            ARRAY['user_id', 'device_type', 'masked_ip', 'masked_device_id', 'locale', 'app_version', 'create_date'],
            ARRAY['character varying(128)', 'character varying(32)', 'character varying(256)', 'character varying(256)',
                  'character varying(32)', 'integer', 'date']
        ) WITH ORDINALITY AS given (name, type, place)
        LEFT JOIN pg_attribute AS found
            ON found.attrelid = ours AND found.attname = given.name AND NOT found.attisdropped
        WHERE format_type(found.atttypid, found.atttypmod) IS DISTINCT FROM given.type
        UNION ALL
        SELECT 98, format('%s should be %s and is %s', found.attname, given.type, format_type(found.atttypid, found.atttypmod))
        FROM (VALUES ('sent_at', 'timestamp with time zone, with milliseconds,'), ('message_id', 'uuid')) AS given (name, type)
        JOIN pg_attribute AS found
            ON found.attrelid = ours AND found.attname = given.name AND NOT found.attisdropped
        WHERE CASE given.name
            WHEN 'sent_at' THEN found.atttypid <> 'timestamptz'::regtype OR found.atttypmod BETWEEN 0 AND 2
            ELSE found.atttypid <> 'uuid'::regtype
        END
        UNION ALL
        SELECT 99, format('%s is NOT NULL, and the stream may have no value for it', attname)
        FROM pg_attribute
        WHERE attrelid = ours AND attnum > 0 AND NOT attisdropped AND attnotnull
          AND CASE
              WHEN attname IN ('masked_ip', 'masked_device_id', 'locale') THEN true
              WHEN attname IN ('user_id', 'device_type', 'app_version', 'create_date', 'sent_at', 'message_id') THEN false
              ELSE NOT atthasdef AND attidentity = ''
          END
    ) AS problems_found;
    IF problems IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = 'the table user_logins that is here does not fit: ' || problems;
    END IF;
END
$$;

ALTER TABLE :"schema".user_logins
    ADD COLUMN IF NOT EXISTS sent_at timestamptz,
    ADD COLUMN IF NOT EXISTS message_id uuid;

COMMENT ON COLUMN :"schema".user_logins.sent_at IS 'when the app''s message entered the queue; null in rows older than the stream';
COMMENT ON COLUMN :"schema".user_logins.message_id IS 'the queue''s id of the message; null in rows older than the stream';
