-- How long dead letters wait for a person, and how many records a person has skipped: for the monitor to tell. Nobody's name, no reason.
GRANT SELECT (failed_at) ON :"schema".dead_letters TO stream_monitor;
GRANT SELECT (action, target, details) ON :"schema".operator_actions TO stream_monitor;
