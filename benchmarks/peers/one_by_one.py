"""One record at a time: an insert and a commit for each, then its offset. Where most such services begin."""

import json
import os
from pathlib import Path
from typing import cast

import psycopg2
from confluent_kafka import Consumer, KafkaException

from benchmarks.peers.login_rows import INSERT, LoginRows

STATEMENT = INSERT.replace("VALUES %s", "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)")


def main() -> None:
    """Until it is ended."""
    rows = LoginRows(Path(os.environ["MASKING_KEYSET_FILE"]))
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ["CONSUMER_GROUP"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ["KAFKA_TOPIC"]])
    connection = psycopg2.connect(os.environ["POSTGRES_DSN"])
    while True:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            raise KafkaException(record.error())
        value, headers = cast("bytes", record.value()), cast("list[tuple[str, bytes]]", record.headers())
        with connection, connection.cursor() as cursor:
            cursor.execute(STATEMENT, rows.row(json.loads(value), dict(headers)))
        consumer.commit(message=record, asynchronous=True)


if __name__ == "__main__":
    main()
