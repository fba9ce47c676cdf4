"""One run from a full topic to rows, timed by Postgres's own commit times; the same for every peer.

The rate is that of the rows after the first commit, from the first commit to the last; start-up is told apart. Nothing is asked of
Postgres while the run lasts but the table's size. A run whose rows are not exactly the topic's, or not masked, has no figures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.filling import SENT_AT_MS
from benchmarks.meter import Meter
from benchmarks.peer import Peer
from benchmarks.report import Quantity
from benchmarks.session import NoFiguresError
from benchmarks.workbench import Workbench
from dev_servers.process import ChildProcess, log_tail

RUN_SECONDS_MAX = 600.0
STALL_SECONDS_MAX = 60.0
"""A peer that writes nothing for so long will not end."""
POLL_SECONDS = 0.1
QUIET_SECONDS = 0.5
"""The rows are counted once the table has not grown for so long."""
COMMITS_MIN = 3

QUANTITIES = (
    Quantity("rows_per_second", "rows/s"),
    Quantity("cpu_us", "CPU us a row", 1),
    Quantity("postgres_cpu_us", "Postgres CPU us a row", 1),
    Quantity("kafka_cpu_us", "Kafka CPU us a row", 1),
    Quantity("memory_mb", "memory MB"),
    Quantity("start_seconds", "start-up s", 1),
    Quantity("other_cores", "cores busy otherwise", 2),
)

OF_THE_STREAM = {"sent_from": SENT_AT_MS / 1000}
"""Rows that were in the table before are older."""
COUNT = "SELECT count(*) FROM user_logins WHERE sent_at IS NULL OR sent_at >= to_timestamp(%(sent_from)s)"
COMMITS = """
    SELECT at, rows FROM (
        SELECT extract(epoch FROM pg_xact_commit_timestamp(xid))::float8 AS at, rows
        FROM (
            SELECT xmin AS xid, count(*) AS rows FROM user_logins
            WHERE sent_at IS NULL OR sent_at >= to_timestamp(%(sent_from)s) GROUP BY xmin
        ) AS transactions
    ) AS timed WHERE at >= %(since)s ORDER BY at
"""
UNMASKED = """
    SELECT count(*) FROM user_logins
    WHERE (sent_at IS NULL OR sent_at >= to_timestamp(%(sent_from)s)) AND (
        masked_ip IS NULL OR masked_ip ~ '[.:]' OR masked_device_id IS NULL OR masked_device_id ~ '^[0-9]+-[0-9]+-[0-9]+$'
    )
"""


@dataclass(frozen=True, slots=True)
class Commits:
    """When the rows of one run came."""

    first_at: float
    first_rows: int
    last_at: float
    rows: int

    @property
    def rows_per_second(self) -> float:
        """Of the rows after the first commit."""
        return self.timed_rows / (self.last_at - self.first_at)

    @property
    def timed_rows(self) -> int:
        """Those that the rate is of."""
        return self.rows - self.first_rows


def commits(bench: Workbench, since: float) -> Commits:
    """Of the rows that came since. Raises :class:`NoFiguresError` when they are too few for a rate."""
    found = bench.query(COMMITS, {**OF_THE_STREAM, "since": since})
    if len(found) < COMMITS_MIN:
        raise NoFiguresError(f"{len(found)} commits are too few for a rate")
    return Commits(found[0][0], found[0][1], found[-1][0], sum(rows for _, rows in found))


def run_peer(
    bench: Workbench,
    peer: Peer,
    topic: str,
    partitions: int,
    rows: int,
    *,
    copies: int = 1,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Mapping[str, float]:
    """The figures, by the keys of :data:`QUANTITIES`. Raises :class:`NoFiguresError`.

    ``rows`` is how many the topic makes; ``copies``, how many processes share it.
    """
    started_at = time.time()
    servers = bench.servers(topic, partitions)
    with ExitStack() as stack:
        children = {}
        for number in range(copies):
            children[f"peer {number}"] = child = bench.launch(peer.name, peer.command(servers))
            stack.callback(child.stop)
        with Meter({**{name: child.pid for name, child in children.items()}, **bench.pids}) as meter:
            _wait_for_rows(bench, list(children.values()), rows, on_progress)
    timed = commits(bench, started_at)
    if timed.rows != rows:
        raise NoFiguresError(f"{timed.rows:,} rows instead of {rows:,}")
    if unmasked := bench.query(UNMASKED, OF_THE_STREAM)[0][0]:
        raise NoFiguresError(f"{unmasked:,} rows are not masked")
    span = (timed.first_at, timed.last_at)
    per_row = 1e6 / timed.timed_rows
    return {
        "rows_per_second": timed.rows_per_second,
        "cpu_us": sum(meter.cpu(name, *span) for name in children) * per_row,
        "postgres_cpu_us": meter.cpu("postgres", *span) * per_row,
        "kafka_cpu_us": meter.cpu("kafka", *span) * per_row,
        "memory_mb": sum(meter.resident_most(name) for name in children) / 1e6,
        "start_seconds": timed.first_at - started_at,
        "other_cores": meter.other_cores(*span),
    }


def _wait_for_rows(bench: Workbench, children: Sequence[ChildProcess], rows: int, on_progress: Callable[[str], None]) -> None:
    """Until the table has them, or more. A peer may end by itself once it has."""
    size = count = 0
    counting_seconds = 0.0
    began_at = grown_at = counted_at = time.monotonic()
    with bench.session() as ask:
        while True:
            ended = next((child for child in children if child.returncode is not None), None)
            found: int = ask("SELECT pg_relation_size('user_logins')")[0][0]
            now = time.monotonic()
            if found != size:
                size, grown_at = found, now
                on_progress(f"{size / 1e6:,.0f} MB of rows")
            if ended or now - max(grown_at, counted_at) > max(QUIET_SECONDS, 10 * counting_seconds):
                counted: int = ask(COUNT, OF_THE_STREAM)[0][0]
                if counted >= rows:
                    return
                counted_at = time.monotonic()
                counting_seconds = counted_at - now
                if counted != count:
                    count, grown_at = counted, counted_at
            if ended is not None:
                raise NoFiguresError(f"ended early after {count:,} rows", log_tail(ended.log_file))
            if now - grown_at > STALL_SECONDS_MAX:
                raise NoFiguresError(
                    f"wrote nothing more for {STALL_SECONDS_MAX:.0f} s after {count:,} rows", log_tail(children[0].log_file)
                )
            if now - began_at > RUN_SECONDS_MAX:
                raise NoFiguresError(f"was not done within {RUN_SECONDS_MAX:.0f} s", log_tail(children[0].log_file))
            time.sleep(POLL_SECONDS)
