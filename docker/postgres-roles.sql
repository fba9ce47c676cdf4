-- Runs once, when docker-compose's Postgres makes its database: the logins of worker and monitor. They own nothing, and may do what
-- `stream_writer` and `stream_monitor` may; `faust -A stream_app migrate` finds these roles here and grants the rights to them.
\set password `cat /secrets/database/worker`
CREATE ROLE stream_writer NOLOGIN;
CREATE ROLE worker LOGIN PASSWORD :'password' IN ROLE stream_writer;
\set password `cat /secrets/database/monitor`
CREATE ROLE stream_monitor NOLOGIN;
CREATE ROLE monitor LOGIN PASSWORD :'password' IN ROLE stream_monitor;
