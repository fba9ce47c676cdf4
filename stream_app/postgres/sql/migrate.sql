-- name: make_schema
-- Closed: its owner gives the rights, and default privileges may have given some to all.
CREATE SCHEMA :"schema";
REVOKE ALL ON SCHEMA :"schema" FROM PUBLIC;

-- name: make_record
-- What was applied. Not touched where it is.
CREATE TABLE IF NOT EXISTS :"schema".stream_migrations (
    name       text        PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text        NOT NULL DEFAULT session_user
);

-- name: take_turn
-- One migration at a time. Whoever may only read the table can't take a lock that this one waits for, and nobody but the owner of the
-- tables may write it: an advisory lock could be held by any login.
LOCK TABLE ONLY :"schema".stream_migrations IN SHARE ROW EXCLUSIVE MODE;

-- name: hold_record
-- So that it stays what it is while it is looked at and read.
LOCK TABLE ONLY :"schema".stream_migrations IN ACCESS SHARE MODE;

-- name: read_record
-- Not by SELECT, which would run what the table's owner has put on it: a policy, or an index's expression while it is planned. A session
-- that migrates has row_security off, so that a policy is an error. Children of the table are not read.
COPY :"schema".stream_migrations (name) TO STDOUT;

-- name: write_record
-- In the transaction that applied it.
INSERT INTO :"schema".stream_migrations (name) VALUES (%(name)s);

-- name: limit_lock_wait
-- For this transaction.
SELECT set_config('lock_timeout', %(milliseconds)s || 'ms', true);

-- name: notice_closed_connection
-- Killed in the middle, it lets go of its locks soon.
SELECT set_config('client_connection_check_interval', '2s', true);

-- name: look_at_schema
-- Whether every login may make things in it; no row if it is not there.
SELECT has_schema_privilege('public', oid, 'CREATE') FROM pg_namespace WHERE nspname = :'schema';

-- name: look_at_tables
-- Those that are here by the names of ours: what they are, whose, and whether that is somebody who could do all that this login can.
SELECT relname, relkind, rolname, rolname = current_user OR rolsuper OR relowner = (
    SELECT datdba FROM pg_database WHERE datname = current_database()
)
FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :'schema')
  AND relname IN (
      'user_logins', 'stream_positions', 'dead_letters', 'replay_key', 'reveal_audit', 'operator_actions', 'stream_migrations'
  )
ORDER BY relname;

-- name: look_for_holders
-- Sessions that have locks on our tables. Who they are is open to all, what they do is not.
SELECT DISTINCT pid, usename, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE granted AND locktype = 'relation' AND pid <> pg_backend_pid() AND relation IN (
    SELECT oid FROM pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :'schema') AND relname = ANY(%(tables)s)
) AND mode = ANY(%(modes)s)
ORDER BY pid;

-- name: look_for_functions
-- Functions of others that a write to our tables runs, and that look for names where the session does: those of triggers, constraints,
-- defaults, indexes and policies, on partitions too.
WITH RECURSIVE tables AS (
    SELECT oid FROM pg_class
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :'schema')
      AND relname IN (
          'user_logins', 'stream_positions', 'dead_letters', 'replay_key', 'reveal_audit', 'operator_actions', 'stream_migrations'
      )
    UNION SELECT inhrelid FROM pg_inherits JOIN tables ON inhparent = tables.oid
), parts AS (
    SELECT 'pg_constraint'::regclass::oid AS catalog, oid FROM pg_constraint WHERE conrelid IN (SELECT oid FROM tables)
    UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM tables)
    UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid IN (SELECT oid FROM tables)
    UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid IN (SELECT oid FROM tables)
), used AS (
    SELECT tgfoid AS oid FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM tables) AND NOT tgisinternal
    UNION SELECT refobjid FROM pg_depend JOIN parts ON classid = catalog AND objid = oid WHERE refclassid = 'pg_proc'::regclass
)
SELECT quote_ident(nspname) || '.' || quote_ident(proname) || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')'
FROM pg_proc
JOIN pg_namespace ON pg_namespace.oid = pronamespace
JOIN pg_language ON pg_language.oid = prolang
WHERE pg_proc.oid IN (SELECT oid FROM used) AND nspname <> 'pg_catalog' AND lanname NOT IN ('internal', 'c') AND prosqlbody IS NULL
  AND NOT EXISTS (SELECT FROM unnest(proconfig) AS setting WHERE starts_with(setting, 'search_path='))
ORDER BY 1;

-- name: look_at_log_settings
-- As sessions of this login begin with them.
SELECT name, reset_val FROM pg_settings WHERE name = ANY(%(names)s);

-- name: role_exists
-- Whether the writer's role is there.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stream_writer');

-- name: may_keep_rows_out_of_log
-- From Postgres 15 on.
SELECT bool_and(has_parameter_privilege('stream_writer', name, 'SET')) FROM unnest(%(names)s) AS name;

-- name: keep_rows_out_of_log
-- From Postgres 15 on, as a superuser: the right to say nothing of rows in the server's log.
GRANT SET ON PARAMETER log_min_error_statement, log_error_verbosity
    TO stream_writer, stream_operator, stream_privacy_officer, stream_monitor;

-- name: look_at_logins
-- The logins that take the writer's role, and the settings that theirs and this database's sessions begin with.
SELECT quote_ident(rolname), ARRAY(
    SELECT setting FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setrole = pg_roles.oid AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
)
FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND pg_has_role(oid, 'stream_writer', 'MEMBER') ORDER BY 1;
