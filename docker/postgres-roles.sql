-- Runs once, when docker-compose's Postgres makes its database: the worker's own login. It owns nothing, and may do what
-- `stream_writer` may; `faust -A stream_app migrate` finds that role here and grants the rights to it.
\set password `cat /secrets/worker/postgres-password`
CREATE ROLE stream_writer NOLOGIN;
CREATE ROLE worker LOGIN PASSWORD :'password' IN ROLE stream_writer;
