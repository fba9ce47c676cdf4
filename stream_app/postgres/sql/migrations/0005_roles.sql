-- One role for each job. Roles belong to the whole server: another database of it may have made them, or be making them now, and
-- where the migrating user may not make roles, they may be there already.
DO $$
DECLARE
    missing text;
BEGIN
    FOREACH missing IN ARRAY ARRAY['stream_writer', 'stream_operator', 'stream_analyst', 'stream_privacy_officer'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = missing);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', missing);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION USING MESSAGE = format(
                    'the role %s is missing and %s may not create roles: have a superuser run CREATE ROLE %s NOLOGIN',
                    missing, current_user, missing);
        END;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA :"schema" TO stream_writer, stream_operator, stream_analyst, stream_privacy_officer;

GRANT INSERT, SELECT (sent_at, message_id) ON :"schema".user_logins TO stream_writer;
GRANT INSERT, SELECT (sent_at, message_id, record_offset) ON :"schema".dead_letters TO stream_writer;
GRANT SELECT, INSERT, UPDATE (next_offset, epoch, owner, updated_at) ON :"schema".stream_positions TO stream_writer;

GRANT SELECT, UPDATE (resolution) ON :"schema".dead_letters TO stream_operator;
GRANT SELECT, UPDATE (next_offset, epoch, owner, updated_at) ON :"schema".stream_positions TO stream_operator;

GRANT SELECT ON :"schema".user_logins TO stream_analyst;

GRANT SELECT, INSERT (reason, field, tokens) ON :"schema".reveal_audit TO stream_privacy_officer;

-- For `migrate --check`, run by whoever waits for the tables.
GRANT SELECT ON :"schema".stream_migrations TO stream_writer, stream_operator, stream_analyst, stream_privacy_officer;
