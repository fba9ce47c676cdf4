-- The role of `faust -A stream_app monitor`: positions and counts, no record's content, no reason and nobody's name.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stream_monitor') THEN
        CREATE ROLE stream_monitor NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION USING MESSAGE = format(
            'the role stream_monitor is missing and %s may not create roles: have a superuser run CREATE ROLE stream_monitor NOLOGIN',
            current_user);
END
$$;

GRANT USAGE ON SCHEMA :"schema" TO stream_monitor;
GRANT SELECT (consumer_group, topic, partition, next_offset, updated_at) ON :"schema".stream_positions TO stream_monitor;
GRANT SELECT (reason, resolution) ON :"schema".dead_letters TO stream_monitor;
GRANT SELECT (field, tokens) ON :"schema".reveal_audit TO stream_monitor;
GRANT SELECT ON :"schema".stream_migrations TO stream_monitor;
