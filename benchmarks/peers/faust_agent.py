"""The plain Faust agent: ``take`` a batch, one statement by ``execute_values``. Tuning that was tried: README.md."""

import os
from pathlib import Path
from typing import Any, cast

import faust
import psycopg2
from faust.streams import Stream
from faust.types import StreamT
from psycopg2.extras import execute_values

from benchmarks.peers.login_rows import INSERT, LoginRows

TAKE_EVENTS = 1_000
WITHIN_SECONDS = 1.0


def application() -> faust.App:
    """The app with its one agent."""
    app = faust.App(
        os.environ["CONSUMER_GROUP"],
        broker=f"kafka://{os.environ['KAFKA_BOOTSTRAP_SERVERS']}",
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    logins = app.topic(os.environ["KAFKA_TOPIC"], value_serializer="json", key_serializer="raw", key_type=bytes)
    rows = LoginRows(Path(os.environ["MASKING_KEYSET_FILE"]))
    connection = psycopg2.connect(os.environ["POSTGRES_DSN"])

    async def load(stream: StreamT[Any]) -> None:
        # Not take(): it drops the headers.
        async for events in cast("Stream[Any]", stream).take_events(TAKE_EVENTS, within=WITHIN_SECONDS):
            with connection, connection.cursor() as cursor:
                made = [rows.row(cast("dict[str, Any]", event.value), event.headers) for event in events]
                execute_values(cursor, INSERT, made, page_size=len(made))

    app.agent(logins)(load)
    return app


if __name__ == "__main__":
    application().main()
