"""Quix Streams with its own PostgreSQL sink. Tuning that was tried: README.md."""

import os
from pathlib import Path
from typing import Any

from psycopg2.extensions import AsIs, parse_dsn
from quixstreams import Application
from quixstreams.sinks.community.postgresql import PostgreSQLSink

from benchmarks.peers.login_rows import COLUMNS, LoginRows

COMMIT_RECORDS = 10_000
COMMIT_SECONDS = 1.0
NULL = AsIs("NULL")
"""The sink takes a batch's columns from those of its first row that are not None: with None here, whole batches lose a column."""


def application() -> Application:
    """The app with its one pipeline."""
    app = Application(
        broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        consumer_group=os.environ["CONSUMER_GROUP"],
        auto_offset_reset="earliest",
        commit_every=COMMIT_RECORDS,
        commit_interval=COMMIT_SECONDS,
        loglevel="WARNING",
    )
    rows = LoginRows(Path(os.environ["MASKING_KEYSET_FILE"]))

    def columns(login: dict[str, Any], _key: object, _timestamp: int, headers: list[tuple[str, bytes]]) -> dict[str, Any]:
        row = rows.row(login, dict(headers))
        return {column: NULL if value is None else value for column, value in zip(COLUMNS, row, strict=True)}

    logins = app.dataframe(app.topic(os.environ["KAFKA_TOPIC"], value_deserializer="json"))
    logins.apply(columns, metadata=True).sink(sink(os.environ["POSTGRES_DSN"]))
    return app


def sink(dsn: str) -> PostgreSQLSink:
    """Into the table as it is, a row that is there already passed over."""
    address = parse_dsn(dsn)
    return PostgreSQLSink(
        host=address["host"],
        port=int(address["port"]),
        dbname=address["dbname"],
        user=address["user"],
        password=address.get("password", ""),
        table_name="user_logins",
        schema_auto_update=False,
        on_conflict_do_nothing=True,
        include_metadata=False,
    )


if __name__ == "__main__":
    application().run()
