"""The pipeline as its users run it: bridge and workers as processes, told by environment variables, and what they left behind."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from dev_servers.pipeline_processes import PipelineProcesses

WAIT_SECONDS = 60.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Poll until ``condition`` is true; its value. Fails the test with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return value


class RunningPipeline(PipelineProcesses):
    """One test's pipeline, its processes and what they left: a topic, group and database of its own on shared servers."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, bootstrap_servers: str, dsn: str, topic: str) -> None:
        super().__init__(directory, environment)
        self.bootstrap_servers = bootstrap_servers
        self.dsn = dsn
        self.topic = topic

    def stop_all(self) -> None:
        self.stop(*self.running)

    def stop_worker(self) -> int:
        """SIGTERM to the only one; its exit code."""
        return self.stop("worker")["worker"]

    # --- what is in Kafka and Postgres

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - the test's own table name

    def produce(
        self, records: Iterable[tuple[bytes | None, bytes | None, dict[str, bytes]]], compression: str = "lz4", partition: int = -1
    ) -> int:
        """Put records (key, value, headers) on the topic, without the bridge; by key, or all to one partition."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "compression.type": compression, "linger.ms": 5,
                             "message.max.bytes": 2_000_000})  # fmt: skip
        number = 0
        for key, value, headers in records:
            while True:
                try:
                    producer.produce(self.topic, value, key, partition, headers=list(headers.items()))
                    break
                except BufferError:
                    producer.poll(0.1)
            number += 1
        assert producer.flush(30) == 0
        return number

    def log_ends(self) -> dict[int, int]:
        """The end of each partition's log, open transactions or not."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap_servers, "group.id": "log-ends", "isolation.level": "read_uncommitted"}
        )
        try:
            partitions = (
                AdminClient({"bootstrap.servers": self.bootstrap_servers})
                .list_topics(self.topic, timeout=10)
                .topics[self.topic]
                .partitions
            )
            return {p: consumer.get_watermark_offsets(TopicPartition(self.topic, p), timeout=10)[1] for p in partitions}
        finally:
            consumer.close()

    def positions(self) -> dict[int, int]:
        return dict(self.query("SELECT partition, next_offset FROM stream_positions WHERE topic = %s", [self.topic]))

    def wait_drained(self, seconds: float = WAIT_SECONDS) -> None:
        """Until every position is at its log's end."""

        def drained() -> bool:
            positions, ends = self.positions(), self.log_ends()
            return all(positions.get(partition, 0) == end for partition, end in ends.items())

        wait_until(drained, "every position is at the end of its log", seconds)

    def assert_each_once(self, message_ids: Iterable[str]) -> None:
        """Each of these is in exactly one of rows and dead letters, and nothing else is."""
        rows = self.query("SELECT message_id::text FROM user_logins UNION ALL SELECT message_id::text FROM dead_letters")
        found = Counter(row[0] for row in rows)
        expected = set(message_ids)
        assert {i for i, n in found.items() if n > 1} == set(), "twice"
        assert expected - found.keys() == set(), "lost"
        assert found.keys() - expected == set(), "unknown"


def fields_in_log(text: str, event: str) -> list[dict[str, str]]:
    """The fields of each line of an event in a text log."""
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in text.splitlines() if f" {event} " in line]
