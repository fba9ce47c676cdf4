-- name: what_it_is
-- Asked before anything else, when it is not yet known where this session looks for names: so everything here has its schema, and there
-- is no operator.
SELECT current_user,
       pg_catalog.current_setting('search_path'),
       pg_catalog.current_setting('is_superuser'),
       pg_catalog.current_setting('log_min_error_statement'),
       pg_catalog.current_setting('log_error_verbosity'),
       pg_catalog.current_setting('log_statement'),
       pg_catalog.current_setting('log_min_duration_statement'),
       pg_catalog.current_setting('log_min_duration_sample'),
       pg_catalog.current_setting('log_transaction_sample_rate');

-- name: schemas_of_tables
-- Where tables of ours are in this database.
SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = 'stream_migrations' AND relkind = 'r' AND nspname !~ '^pg_'
ORDER BY nspname;

-- name: say_no_rows_in_errors
-- From Postgres 15 on; what the role may not set stays, and is no error.
SELECT CASE WHEN has_parameter_privilege('log_min_error_statement', 'SET')
            THEN set_config('log_min_error_statement', 'panic', false) ELSE current_setting('log_min_error_statement') END,
       CASE WHEN has_parameter_privilege('log_error_verbosity', 'SET')
            THEN set_config('log_error_verbosity', 'terse', false) ELSE current_setting('log_error_verbosity') END;

-- name: say_no_rows_in_errors_as_superuser
-- Before Postgres 15, where nobody else may.
SELECT set_config('log_min_error_statement', 'panic', false), set_config('log_error_verbosity', 'terse', false);
