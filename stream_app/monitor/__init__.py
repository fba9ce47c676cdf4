"""`faust -A stream_app monitor`: looks at Kafka and Postgres from outside, so that lag is seen when no worker lives."""
