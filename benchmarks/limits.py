"""What nobody can beat: reading the topic and doing nothing, ``COPY`` of finished rows, receiving and deleting. Each is a process.

    python -m benchmarks.limits drain BOOTSTRAP_SERVERS TOPIC RECORDS
    python -m benchmarks.limits copy DSN ROWS_PER_TRANSACTION
    python -m benchmarks.limits queue QUEUE_URL

``copy`` takes the rows that are in ``user_logins``, in the order in which they were written, empties the table and copies them into
it again, over one connection, with the index in place; ``ROWS_PER_TRANSACTION`` 0 means all in one. Each prints one line of JSON.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import BinaryIO

import msgspec
import psycopg2
from aiokafka import AIOKafkaConsumer

from dev_servers.raw_queue import RawQueue

FETCH_BYTES_MAX = 1_048_576
RECORDS_MAX = 5_000
"""As the worker has them."""
QUEUE_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Limit:
    """What a limit's process printed."""

    records: int
    timed_records: int
    """Without those of the first fetch, which is when the time begins."""
    since: float
    until: float
    cpu_seconds: float


def parsed(line: str) -> Limit:
    """From the line of JSON."""
    return msgspec.json.decode(line, type=Limit)


async def drain(bootstrap_servers: str, topic: str, records: int) -> Limit:
    """Read all with aiokafka's ``getmany``, which is also under Faust; look at no record."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
    )
    await consumer.start()
    try:
        read = untimed = 0
        since = cpu = 0.0
        while read < records:
            chunks = await consumer.getmany(timeout_ms=1_000, max_records=RECORDS_MAX)
            read += sum(map(len, chunks.values()))
            if read and not untimed:
                untimed, since, cpu = read, time.time(), time.process_time()
        return Limit(read, read - untimed, since, time.time(), time.process_time() - cpu)
    finally:
        await consumer.stop()


def copy(dsn: str, rows_per_transaction: int) -> Limit:
    """Copy the table's rows out, empty it, copy them in."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor, tempfile.TemporaryFile() as rows:
        connection.autocommit = True
        cursor.copy_expert("COPY user_logins TO STDOUT", rows)
        copied = cursor.rowcount
        cursor.execute("TRUNCATE user_logins")
        cursor.execute("CHECKPOINT")
        rows.seek(0)
        since, cpu = time.time(), time.process_time()
        for part in parts(rows, rows_per_transaction):
            cursor.copy_expert("COPY user_logins FROM STDIN", part)
        return Limit(copied, copied, since, time.time(), time.process_time() - cpu)


def empty_queue(queue_url: str) -> Limit:
    """Receive and delete until nothing is visible; several connections, no signature."""

    def receive_and_delete(_: int) -> int:
        deleted = 0
        with RawQueue(queue_url) as queue:
            while receipts := queue.receive():
                queue.delete(receipts)
                deleted += len(receipts)
        return deleted

    since, cpu = time.time(), time.process_time()
    with ThreadPoolExecutor(QUEUE_CONNECTIONS) as pool:
        deleted = sum(pool.map(receive_and_delete, range(QUEUE_CONNECTIONS)))
    return Limit(deleted, deleted, since, time.time(), time.process_time() - cpu)


def parts(rows: BinaryIO, size: int) -> Iterator[BinaryIO]:
    """The lines, so many at a time; 0: all together."""
    if not size:
        yield rows
        return
    while part := b"".join(islice(rows, size)):
        yield BytesIO(part)


def main() -> None:
    """The command line above."""
    match sys.argv[1:]:
        case ["drain", bootstrap_servers, topic, records]:
            limit = asyncio.run(drain(bootstrap_servers, topic, int(records)))
        case ["copy", dsn, rows]:
            limit = copy(dsn, int(rows))
        case ["queue", queue_url]:
            limit = empty_queue(queue_url)
        case _:
            raise SystemExit(__doc__)
    sys.stdout.write(msgspec.json.encode(limit).decode() + "\n")


if __name__ == "__main__":
    main()
