"""How far the demo's messages are, hop by hop: counted where they are, shown while they move."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import cast

import psycopg2
from confluent_kafka import Consumer, KafkaException, TopicPartition
from psycopg2.extensions import connection
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from dev_servers.local_pipeline import TOPIC, LocalPipeline
from dev_servers.raw_queue import RawQueue

KAFKA_SECONDS = 5.0
LINE_SECONDS = 1.0
BAR_WIDTH_MAX = 40
NUMBERS_WIDTH = 41
"""What stands beside a bar at most: the hop's name, and both numbers of a million."""
DEAD_LETTERS = "dead letters"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many messages are where."""

    sent: int | None
    """None: others send."""
    queued: int
    """In the queue, those included that the bridge holds."""
    in_topic: int
    """Records: a message whose bridge was killed between Kafka and the queue is there twice."""
    rows: int
    dead_letters: int

    @property
    def finished(self) -> int:
        """Those that came to their end."""
        return self.rows + self.dead_letters


class Counter:
    """Asks the queue, Kafka and Postgres."""

    def __init__(self, pipeline: LocalPipeline) -> None:
        self._queue = RawQueue(pipeline.elasticmq.queue_url)
        self._consumer = Consumer(
            {
                "bootstrap.servers": pipeline.kafka.bootstrap_servers,
                "group.id": "demo",
                "isolation.level": "read_uncommitted",  # else an open transaction would be taken for the end
                "log_level": 0,
            }
        )
        self._dsn = pipeline.postgres.dsn
        self._postgres: connection | None = None

    def count(self, sent: int | None) -> Counts | None:
        """Now; None while a server does not answer, because it was ended and is being started again.

        ``sent``: None if it is not known, as when others send; then what has left the queue is not, either.
        """
        try:
            queued = self._queue.size()
            rows, dead_letters = self._in_tables()
        except (OSError, HTTPException, psycopg2.Error):
            self.close_connections()
            return None
        return Counts(sent, queued, self._in_topic(), rows, dead_letters)

    def _in_tables(self) -> tuple[int, int]:
        if self._postgres is None:
            self._postgres = psycopg2.connect(self._dsn, connect_timeout=5)
            self._postgres.autocommit = True
        with self._postgres.cursor() as cursor:
            cursor.execute("SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM dead_letters)")
            return cast("tuple[int, int]", cursor.fetchone())

    def _in_topic(self) -> int:
        try:
            topic = self._consumer.list_topics(TOPIC, timeout=KAFKA_SECONDS).topics[TOPIC]
            ends = [
                self._consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=KAFKA_SECONDS)[1]
                for partition in topic.partitions
            ]
        except KafkaException:
            return 0  # the topic is about to be made
        return sum(ends)

    def close(self) -> None:
        """Let go of the connections."""
        self.close_connections()
        self._consumer.close()

    def close_connections(self) -> None:
        """Those that are opened again when they are needed."""
        self._queue.close()
        if self._postgres is not None:
            self._postgres.close()
            self._postgres = None


class ProgressView:
    """One bar a hop on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live: Live | None = None
        self._shown: Counts | None = None
        self._line_at = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bars, as long as the body runs."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console) as self._live:
            yield

    def show(self, counts: Counts) -> None:
        """The present state."""
        if self._live is not None:
            self._live.update(self._bars(counts))
        elif counts != self._shown and (time.monotonic() >= self._line_at or counts.finished >= self._total):
            self._shown = counts
            self._line_at = time.monotonic() + LINE_SECONDS
            self._console.print(as_line(counts))

    def _bars(self, counts: Counts) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right")
        table.add_column(width=max(min(self._console.width - NUMBERS_WIDTH, BAR_WIDTH_MAX), 1))
        for hop, value in _by_hop(counts).items():
            bar = ProgressBar(self._total, min(value, self._total), complete_style="cyan", finished_style="green")
            table.add_row(
                hop, "" if hop == DEAD_LETTERS else bar, f"{value:,}" if hop == DEAD_LETTERS else f"{value:,} of {self._total:,}"
            )
        return table


def as_line(counts: Counts) -> str:
    """All hops in one line."""
    return " · ".join(f"{hop} {value:,}" for hop, value in _by_hop(counts).items())


def _by_hop(counts: Counts) -> dict[str, int]:
    tables = {"rows in Postgres": counts.rows, DEAD_LETTERS: counts.dead_letters}
    if counts.sent is None:
        return {"in the queue": counts.queued, "in Kafka": counts.in_topic, **tables}
    left = max(counts.sent - counts.queued, 0)  # a batch may be in the queue before its sender has heard of it
    return {"sent to the queue": counts.sent, "left the queue": left, "in the Kafka topic": counts.in_topic, **tables}
