"""Dead letters of a real topic in a real database, a worker's reading of it, and the operator who is logged in."""

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import structlog
from aiokafka.structs import ConsumerRecord
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from login_records import SENT_AT_BOUNDS, chunk
from pydantic import SecretStr

from dev_servers.kafka import Kafka
from dev_servers.postgres import Postgres
from stream_app.batch import BatchBuilder
from stream_app.claimed_writer import ClaimedWriter
from stream_app.commands.keys import create_keysets
from stream_app.dead_letters import Sealer
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.metrics import WorkerMetrics
from stream_app.positions import Partition
from stream_app.postgres.batch_writer import BatchWriter
from stream_app.postgres.connection import OPERATOR, WRITER
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.settings import PostgresSettings
from stream_app.refusals import RefusedRun
from stream_app.refused_rows import RefusedRows

SENT_AT_MS = 1_763_900_000_000

KILLED_AT = {
    "before anything is sent": """
        def send(self, records):
            os.kill(os.getpid(), signal.SIGKILL)""",
    "between acknowledgement and resolution": """
        def send(self, records):
            assert real(self, records) == [None] * len(records)
            os.kill(os.getpid(), signal.SIGKILL)""",
    "when the first of them are sent": """
        def send(self, records):
            assert real(self, records[:1]) == [None]
            os.kill(os.getpid(), signal.SIGKILL)""",
}
_COMMAND = """
import os, signal, sys
from stream_app.replay_producer import ReplayProducer
real = ReplayProducer.send
{send}
ReplayProducer.send = send
from stream_app.application import app
sys.argv = ["faust", "-A", "stream_app", *sys.argv[1:]]
from faust.cli.faust import cli
cli()
"""


class ReplayScene:
    """A topic with one partition, and a database."""

    def __init__(self, kafka: Kafka, dsn: str, directory: Path) -> None:
        self.topic = f"replay-{secrets.token_hex(4)}"
        self.place = Partition(self.topic, 0)
        self._kafka = kafka
        self._dsn = dsn
        self.keysets = {file.setting: str(path) for file, path in create_keysets(directory / "keys").items()}
        self._admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        self._admin.create_topics([NewTopic(self.topic, 1, 1, config={"retention.ms": "-1"})])[self.topic].result()
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TOPIC": self.topic,
            "POSTGRES_DSN": dsn,
            "DEAD_LETTER_PRIVATE_KEYSET_FILE": self.keysets["DEAD_LETTER_PRIVATE_KEYSET_FILE"],
        }

    def close(self) -> None:
        self._admin.delete_topics([self.topic])[self.topic].result()

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self._dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def letters(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT reason, resolution, replays, replays_failed, replay_ended FROM dead_letters ORDER BY record_offset"
        )

    def produce(self, *records: tuple[bytes | None, list[tuple[str, bytes | None]]], timestamp: int = SENT_AT_MS) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "linger.ms": 0})
        for value, headers in records:
            producer.produce(self.topic, value, b"a key", 0, timestamp=timestamp, headers=list[Any](headers))
        assert producer.flush(30) == 0

    def records(self, first_offset: int = 0) -> Iterator[ConsumerRecord[Any, Any]]:
        """Of the topic, from an offset to its end."""
        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": "none", "enable.auto.commit": False})
        try:
            consumer.assign([TopicPartition(self.topic, 0, first_offset)])
            _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=10)
            offset = first_offset
            while offset < end:
                message = consumer.poll(10)
                assert message is not None
                assert message.error() is None
                offset = message.offset() or 0
                yield ConsumerRecord(
                    topic=self.topic, partition=0, offset=offset, timestamp=message.timestamp()[1], timestamp_type=0,
                    key=message.key(), value=message.value(), checksum=None, serialized_key_size=0, serialized_value_size=0,
                    headers=tuple(message.headers() or ()),
                )  # fmt: skip
                offset += 1
        finally:
            consumer.close()

    def work(self, metrics: WorkerMetrics | None = None) -> None:
        """Write all that is in the topic behind the position, as a worker does."""
        asyncio.run(self._work(metrics or WorkerMetrics()))

    async def _work(self, metrics: WorkerMetrics) -> None:
        settings = PostgresSettings(postgres_dsn=SecretStr(self._dsn))
        pool = ConnectionPool(settings, role=WRITER, application_name="test", size=1)
        try:
            store = BatchWriter(pool, consumer_group="group", owner="test", create_date_time_zone="UTC")
            masker = Masker.load(parse_methods(""), keyset_file=Path(self.keysets["MASKING_KEYSET_FILE"]))
            builder = BatchBuilder(masker, Sealer.load(Path(self.keysets["DEAD_LETTER_PUBLIC_KEYSET_FILE"])), SENT_AT_BOUNDS)
            claim, position = await store.claim(self.place, 0, None)
            builder.replay_key = await store.replay_key()
            written = ClaimedWriter(
                claim, position, await store.newest_sent_at_ms(), store=store, builder=builder, metrics=metrics,
                refused_run=RefusedRun(100, time.monotonic), refused_rows=RefusedRows(time.monotonic),
                log=structlog.get_logger(), sleep=asyncio.sleep, on_written=lambda _: None,
            )  # fmt: skip
            found = list(self.records(position))
            if found:
                batch = builder.begin(self.place, position)
                batch.origins.append(chunk(found))
                builder.add(batch, found)
                await written.write(replace(batch, next_offset=found[-1].offset + 1))
        finally:
            await pool.close()

    def run_killed(self, at: str, *arguments: str) -> None:
        """Run the real command in a process of its own, which is killed at a step."""
        send = "\n".join(line.removeprefix("        ") for line in KILLED_AT[at].splitlines())
        ended = subprocess.run(
            [sys.executable, "-c", _COMMAND.format(send=send), *arguments],
            env={"PATH": "/usr/bin:/bin", **self.environment}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert ended.returncode == -9, ended.stderr


def log_in(postgres: Postgres, dsn: str, name: str, *, role: str = OPERATOR) -> str:
    """The DSN of a login with one role."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'made-up' IN ROLE {role}")
    return postgres.dsn_of(dsn.rpartition("/")[2], name, "made-up")
