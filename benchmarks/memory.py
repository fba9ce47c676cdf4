"""How much memory a worker takes: before a backlog, while Postgres does not answer, and over minutes at full speed.

python -m benchmarks.memory [--records 1000000] [--stall-seconds 40] [--minutes 3] [--only WORD]…
python -m benchmarks.memory --only minutes --minutes 30    the long run, by itself
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import click

from benchmarks.feeder import Feeder
from benchmarks.filling import fill_topic, login_messages
from benchmarks.growth import MANY_PARTITIONS
from benchmarks.latency import wait_for_rows
from benchmarks.meter import Meter, interpolated, tree
from benchmarks.report import Contender, Quantity, Report, Target
from benchmarks.session import (
    Entry,
    NoFiguresError,
    Progress,
    Update,
    finish,
    in_turn,
    keep_option,
    only_option,
    rounds_option,
    save_option,
    wanted,
)
from benchmarks.topics import make_bounded_topic, remove_topic
from benchmarks.workbench import Ask, Workbench, workbench
from benchmarks.worker import PARTITIONS, RECORDS, our_worker
from dev_servers.process import ChildProcess

STALL_SECONDS = 40.0
"""Longer than POSTGRES_STATEMENT_TIMEOUT_SECONDS: statements end by themselves and are tried again."""
MINUTES = 3.0
FEED_BACKLOG_RECORDS = 300_000
KEPT_BYTES = 256 * 2**20
"""Of each partition's log; what was written is of no use any more."""
TABLE_BYTES_MAX = 2 * 2**30
"""The table is emptied at this size: a long run would fill the disk."""
WAIT_SECONDS_MAX = 120.0
POLL_SECONDS = 0.2

BACKLOG = "a backlog"
PARTITIONED = f"a backlog in {MANY_PARTITIONS} partitions"
STOPPED = "Postgres stopped"
LOCKED = "the table locked"
FULL_SPEED = "minutes at full speed"

MOST = Quantity("memory_mb", "most memory MB")
GROWTH = Quantity("growth_mb", "last third less first third, MB", 1)
QUANTITIES = (
    MOST,
    GROWTH,
    Quantity("first_rows_per_second", "rows/s, first third"),
    Quantity("last_rows_per_second", "rows/s, last third"),
)

METHOD = f"""
- One worker with default settings; resident memory of its process, read ten times a second from /proc.
- "A backlog": a full topic, nothing in the way. "Stopped": as that, and when a tenth is written every process of Postgres gets
  SIGSTOP, so that connections stay open and nothing answers. "Locked": as that, and another session holds the table locked.
- "Minutes": the topic is fed as fast as the worker writes, a backlog of {FEED_BACKLOG_RECORDS:,} records stays. The medians of
  the first and the last third are compared. The table is emptied now and then, because a disk ends.
- A run that does not write every record has no figures; over minutes that is seen from the positions.
- Not measured: large records.
"""

TARGETS = (
    *(Target(f"worker, most memory MB: {name}", name, MOST.key, 250) for name in (BACKLOG, PARTITIONED, STOPPED, LOCKED)),
    Target("worker, growth in minutes at full speed, MB", FULL_SPEED, GROWTH.key, 10),
)


@contextmanager
def postgres_stopped(bench: Workbench) -> Iterator[None]:
    """Nothing of it answers; connections stay."""
    pids = list(tree(bench.postgres.child.pid))
    for pid in pids:
        os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, SIGCONT)


@contextmanager
def table_locked(bench: Workbench) -> Iterator[None]:
    """Every write waits."""
    with bench.session() as ask:
        ask("BEGIN")
        ask("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        yield
        ask("COMMIT")


@contextmanager
def undisturbed(_: Workbench) -> Iterator[None]:
    """Nothing happens."""
    yield


Stall = Callable[[Workbench], AbstractContextManager[None]]


def growth(readings: Sequence[tuple[float, float]]) -> float:
    """The median of the last third of the time less that of the first."""
    begin, end = readings[0][0], readings[-1][0]
    third = (end - begin) / 3
    first = [value for at, value in readings if at <= begin + third]
    last = [value for at, value in readings if at >= end - third]
    return statistics.median(last) - statistics.median(first)


def rate(readings: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Of something that is counted: per second between two moments, from readings of its count."""
    return (interpolated(readings, until) - interpolated(readings, since)) / (until - since)


class MemoryBenchmark:
    """Cases on one set of servers."""

    def __init__(self, bench: Workbench, progress: Progress, records: int, stall_seconds: float, minutes: float) -> None:
        self._bench, self._progress, self._records = bench, progress, records
        self._stall_seconds, self._minutes = stall_seconds, minutes

    def entries(self) -> list[Entry]:
        """Every case."""
        stopped = f"for {self._stall_seconds:.0f} s, connections open"
        locked = f"for {self._stall_seconds:.0f} s, ACCESS EXCLUSIVE"
        return [
            Entry(Contender(BACKLOG, f"{self._records:,} records"), partial(self._backlog, PARTITIONS, undisturbed, 0.0)),
            Entry(Contender(PARTITIONED), partial(self._backlog, MANY_PARTITIONS, undisturbed, 0.0)),
            Entry(Contender(STOPPED, stopped), partial(self._backlog, PARTITIONS, postgres_stopped, self._stall_seconds)),
            Entry(Contender(LOCKED, locked), partial(self._backlog, PARTITIONS, table_locked, self._stall_seconds)),
            Entry(Contender(FULL_SPEED, f"{self._minutes:g} minutes"), self._at_full_speed),
        ]

    def _backlog(self, partitions: int, stall: Stall, seconds: float, update: Update) -> Mapping[str, float]:
        bench = self._bench
        topic = f"logins-{self._records}-{partitions}"
        messages = login_messages(self._records)
        fill_topic(bench.kafka.bootstrap_servers, topic, partitions, messages, self._records, say=self._progress.say)
        bench.empty_tables()
        child = self._start(topic, partitions)
        try:
            with Meter({"worker": child.pid}) as meter:
                _wait_for_positions(bench, child, self._records // 10)
                with stall(bench):
                    time.sleep(seconds)
                wait_for_rows(bench, [child], self._records, update)
        finally:
            child.stop()
        return {MOST.key: meter.resident_most("worker") / 1e6}

    def _at_full_speed(self, update: Update) -> Mapping[str, float]:
        bench = self._bench
        kafka, topic = bench.kafka.bootstrap_servers, f"memory-{time.time_ns()}"
        make_bounded_topic(kafka, topic, PARTITIONS, KEPT_BYTES)
        bench.empty_tables()
        child = self._start(topic, PARTITIONS)
        written = [(time.time(), 0.0)]
        try:
            with (
                bench.session() as ask,
                Meter({"worker": child.pid}) as meter,
                Feeder(kafka, topic, lambda sent: FEED_BACKLOG_RECORDS - (sent - int(written[-1][1]))) as feeder,
            ):
                until = time.time() + self._minutes * 60
                while time.time() < until:
                    child.check()
                    written.append((time.time(), float(_written(ask))))
                    _empty_large_table(ask)
                    update(f"{written[-1][1]:,.0f} rows")
                    time.sleep(POLL_SECONDS)
                feeder.stop()
                _wait_for_positions(bench, child, feeder.sent)
        finally:
            child.stop()
        remove_topic(kafka, topic)
        begin = next(at for at, rows in written if rows)
        third = (until - begin) / 3
        memory = [(at, float(size)) for at, size in meter.resident("worker") if begin <= at <= until]
        return {
            MOST.key: meter.resident_most("worker") / 1e6,
            GROWTH.key: growth(memory) / 1e6,
            "first_rows_per_second": rate(written, begin, begin + third),
            "last_rows_per_second": rate(written, until - third, until),
        }

    def _start(self, topic: str, partitions: int) -> ChildProcess:
        return self._bench.launch("worker", our_worker(0).command(self._bench.servers(topic, partitions)))


def _written(ask: Ask) -> int:
    found: int = ask("SELECT coalesce(sum(next_offset), 0)::bigint FROM stream_positions")[0][0]
    return found


def _empty_large_table(ask: Ask) -> None:
    if ask("SELECT pg_relation_size('user_logins')")[0][0] > TABLE_BYTES_MAX:
        ask("TRUNCATE user_logins")


def _wait_for_positions(bench: Workbench, child: ChildProcess, records: int) -> None:
    """Until so many records are written. Raises :class:`NoFiguresError` when that takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    with bench.session() as ask:
        while (found := _written(ask)) < records:
            child.check()
            if time.monotonic() > deadline:
                raise NoFiguresError(f"{found:,} of {records:,} records are written after {WAIT_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)


def measure(
    progress: Progress,
    *,
    records: int = RECORDS,
    stall_seconds: float = STALL_SECONDS,
    minutes: float = MINUTES,
    rounds: int,
    only: Sequence[str] = (),
    keep: Path | None,
) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "postgres"), progress.say, keep) as bench:
        entries = wanted(MemoryBenchmark(bench, progress, records, stall_seconds, minutes).entries(), only)
        runs = in_turn(progress, entries, rounds, [MOST, GROWTH])
    question = "One worker's memory"
    return Report("memory", question, METHOD, [entry.contender for entry in entries], QUANTITIES, TARGETS, runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--records", type=click.IntRange(10_000), default=RECORDS, show_default=True, help="Of the backlog.")
@click.option("--stall-seconds", type=click.FloatRange(1, 600), default=STALL_SECONDS, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=MINUTES, show_default=True)
@rounds_option
@only_option
@keep_option
@save_option
def main(
    *, records: int, stall_seconds: float, minutes: float, rounds: int, only: tuple[str, ...], keep: Path | None, save: Path | None
) -> None:
    """Run it as a command."""
    progress = Progress()
    report = measure(progress, records=records, stall_seconds=stall_seconds, minutes=minutes, rounds=rounds, only=only, keep=keep)
    finish(progress, report, save)


if __name__ == "__main__":
    main()
