"""The pipeline as its users run it: bridge and workers as processes, told by environment variables, and what they left behind."""

import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any
from urllib.request import urlopen

import psycopg2
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from dev_servers.process import ChildProcess, Launch

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Poll until ``condition`` is true; its value. Fails the test with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return value


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RunningPipeline:
    """Names, environment and processes of one test's pipeline: its own topic, group and database on shared servers."""

    directory: Path
    environment: dict[str, str]
    bootstrap_servers: str
    dsn: str
    topic: str
    group: str
    processes: dict[str, ChildProcess] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    # --- processes

    def run(self, *command: str, check: bool = True) -> tuple[int, str]:
        """Run `python -m faust -A stream_app …` to its end; return code and output."""
        name = f"command-{len(list(self.directory.glob('command-*.log')))}"
        child = ChildProcess(
            name,
            Launch([sys.executable, "-m", "faust", "-A", "stream_app", *command], self.environment, ROOT),
            self.directory / f"{name}.log",
        )
        code = child.wait(WAIT_SECONDS)
        output = child.log_file.read_text()
        assert code == 0 or not check, output
        return code, output

    def start(self, name: str, command: Sequence[str], **settings: str) -> ChildProcess:
        child = ChildProcess(
            name,
            Launch([sys.executable, *command], {**self.environment, **settings}, ROOT, stop_seconds=30),
            self.directory / f"{name}.log",
        )
        self.processes[name] = child
        return child

    def start_worker(self, name: str = "worker", **settings: str) -> ChildProcess:
        self.ports[name] = free_port()
        return self.start(name, ["-m", "faust", "-A", "stream_app", "worker"], WEB_PORT=str(self.ports[name]), **settings)

    def start_bridge(self, name: str = "bridge", **settings: str) -> ChildProcess:
        self.ports[name] = free_port()
        return self.start(name, ["-m", "bridges", "sqs"], BRIDGE_WEB_PORT=str(self.ports[name]), **settings)

    def kill(self, name: str) -> None:
        self.processes.pop(name).kill()

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        return self.processes.pop(name).stop(Signals.SIGTERM)

    def stop_all(self) -> None:
        for name in list(self.processes):
            self.stop(name)

    def wait_ready(self, name: str) -> None:
        def ready() -> bool:
            self.processes[name].check()
            try:
                return urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2).status == 200
            except OSError:
                return False

        wait_until(ready, f"{name} is ready")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def scrape(self, name: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """The sum over a metric's series that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.scrape(name))
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    # --- what is in Kafka and Postgres

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters or None)
                return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - the test's own table name

    def produce(self, records: Iterable[tuple[bytes | None, bytes | None, dict[str, bytes]]], compression: str = "lz4") -> int:
        """Put records (key, value, headers) on the topic, without the bridge."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "compression.type": compression, "linger.ms": 5,
                             "message.max.bytes": 2_000_000})  # fmt: skip
        number = 0
        for key, value, headers in records:
            while True:
                try:
                    producer.produce(self.topic, value, key, headers=list(headers.items()))
                    break
                except BufferError:
                    producer.poll(0.1)
            number += 1
        assert producer.flush(30) == 0
        return number

    def log_ends(self) -> dict[int, int]:
        """The end of each partition's log."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "log-ends"})
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
        return dict(self.query("SELECT partition, next_offset FROM stream_positions WHERE topic = %s", [self.topic]))  # type: ignore[arg-type]

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
