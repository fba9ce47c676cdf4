"""How long a partition stands still when a worker leaves (SIGTERM), dies (SIGKILL) or joins.

python -m benchmarks.handover [--session-timeout-seconds 10] [--rounds 3]
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self

import click

from benchmarks.feeder import Feeder, at_rate
from benchmarks.latency import wait_for_rows
from benchmarks.report import Contender, Quantity, Report, Target
from benchmarks.session import Entry, NoFiguresError, Progress, Update, finish, in_turn, rounds_option, save_option
from benchmarks.topics import make_topic, remove_topic
from benchmarks.workbench import Workbench, workbench
from benchmarks.worker import our_worker
from dev_servers.process import ChildProcess
from stream_app.settings import WorkerSettings

PARTITIONS = 4
RECORDS_PER_SECOND = 2_000
POLL_SECONDS = 0.01
BEFORE_SECONDS = 4.0
"""Both workers run in peace for so long before the event."""
AFTER_SECONDS = 3.0
"""Watched further for so long when every partition moves again."""
CHANGE_SECONDS_MAX = 120.0
LEAVES, DIES, JOINS = "a worker leaves by SIGTERM", "a worker dies by SIGKILL", "a worker joins"
SESSION_TIMEOUT_SECONDS = float(WorkerSettings.model_fields["kafka_session_timeout_seconds"].default)

STANDSTILL = Quantity("standstill_seconds", "longest standstill s", 2)
QUANTITIES = (STANDSTILL, Quantity("before_seconds", "longest before s", 2))

METHOD = f"""
- Two workers share {PARTITIONS} partitions, to which {RECORDS_PER_SECOND:,} records a second are written at an even pace; one
  of the two leaves, dies, or comes as the second.
- Standing still: the time between two moves of a partition's position in Postgres, read every {POLL_SECONDS * 1000:.0f} ms. The
  longest one of any partition that ends after the event is the figure; "longest before" is the same in the seconds before, when
  nothing happens: micro-batches are written every fifth of a second.
- A run in which not every record became exactly one row has no figures.
- Not measured: a worker that hangs without dying, several at once, a broker that fails.
"""


@dataclass(frozen=True, slots=True)
class Move:
    """A partition's position changed, or its owner."""

    at: float
    partition: int
    next_offset: int
    owner: str


def longest_standstill(moves: Sequence[float], since: float, until: float) -> float:
    """Of one partition: the longest time between two moves that ends after ``since``, the last one being to ``until``."""
    moments = [*moves, until]
    return max((after - before for before, after in pairwise(moments) if after > since), default=until - since)


class PositionWatch:
    """Reads the positions again and again for as long as it is entered."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="positions")
        self.moves: list[Move] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def owners(self) -> Mapping[int, str]:
        """By partition."""
        return {move.partition: move.owner for move in list(self.moves)}

    def moved_since(self, moment: float) -> set[int]:
        """The partitions whose position moved."""
        return {partition for partition in range(PARTITIONS) if any(at > moment for at in self.moments(partition))}

    def moments(self, partition: int) -> list[float]:
        """When its position moved; a claim alone is no move."""
        moves = [move for move in list(self.moves) if move.partition == partition]
        return [after.at for before, after in pairwise(moves) if after.next_offset > before.next_offset]

    def _run(self) -> None:
        known: dict[int, tuple[int, str]] = {}
        with self._bench.session() as ask:
            while not self._stop.wait(POLL_SECONDS):
                rows = ask("SELECT partition, next_offset, owner FROM stream_positions")
                now = time.monotonic()
                for partition, next_offset, owner in rows:
                    if known.get(partition) != (next_offset, owner):
                        known[partition] = (next_offset, owner)
                        self.moves.append(Move(now, partition, next_offset, owner))


class Handover:
    """One run: workers on a new topic, one event, and what the positions did."""

    def __init__(self, bench: Workbench, settings: Mapping[str, str], update: Update) -> None:
        self._bench, self._update = bench, update
        self._peer = our_worker(0, settings)
        self._workers: list[ChildProcess] = []

    def run(self, event: str) -> Mapping[str, float]:
        """The figures. Raises :class:`NoFiguresError`."""
        bench = self._bench
        kafka, topic = bench.kafka.bootstrap_servers, f"handover-{time.time_ns()}"
        make_topic(kafka, topic, PARTITIONS)
        bench.empty_tables()
        servers = bench.servers(topic, PARTITIONS)

        def start() -> None:
            self._workers.append(bench.launch(f"worker {len(self._workers)}", self._peer.command(servers)))

        try:
            with Feeder(kafka, topic, at_rate(RECORDS_PER_SECOND)) as feeder, PositionWatch(bench) as watch:
                start()
                self._wait(lambda: len(watch.owners()) == PARTITIONS, "the first worker has claimed")
                if event != JOINS:
                    start()
                    self._wait(lambda: len(set(watch.owners().values())) == len(self._workers), "the second worker has claimed")
                quiet_since = time.monotonic() + 1.0
                time.sleep(BEFORE_SECONDS)
                happened_at = time.monotonic()
                if event == JOINS:
                    start()
                else:
                    self._workers.pop().stop(Signals.SIGTERM if event == LEAVES else Signals.SIGKILL)
                self._wait(lambda: len(set(watch.owners().values())) == len(self._workers), "the partitions are shared anew")
                settled_at = time.monotonic()
                self._wait(lambda: len(watch.moved_since(settled_at)) == PARTITIONS, "every partition moves")
                time.sleep(AFTER_SECONDS)
                ended_at = time.monotonic()
                feeder.stop()
                wait_for_rows(bench, self._workers, feeder.sent, self._update)
        finally:
            for worker in self._workers:
                worker.stop()
        remove_topic(kafka, topic)
        moments = [[at for at in watch.moments(partition) if at <= ended_at] for partition in range(PARTITIONS)]
        before = [[at for at in moves if at <= happened_at] for moves in moments]
        return {
            STANDSTILL.key: max(longest_standstill(moves, happened_at, ended_at) for moves in moments),
            "before_seconds": max(longest_standstill(moves[:-1], quiet_since, moves[-1]) for moves in before),
        }

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + CHANGE_SECONDS_MAX
        while not condition():
            for worker in self._workers:
                worker.check()
            if time.monotonic() > deadline:
                raise NoFiguresError(f"not within {CHANGE_SECONDS_MAX:.0f} s: {what}")
            time.sleep(POLL_SECONDS)


def targets(session_timeout_seconds: float) -> Sequence[Target]:
    """A dead worker's partitions can't be given away before its session has ended."""
    return (
        Target("time without progress, a worker leaves, s", LEAVES, STANDSTILL.key, 1.5),
        Target("time without progress, a worker dies (session timeout + 2), s", DIES, STANDSTILL.key, session_timeout_seconds + 2),
        Target("time without progress, a worker joins, s", JOINS, STANDSTILL.key, 2),
    )


def measure(progress: Progress, *, session_timeout_seconds: float = SESSION_TIMEOUT_SECONDS, rounds: int) -> Report:
    """Run the benchmark."""
    settings = {"KAFKA_SESSION_TIMEOUT_SECONDS": f"{session_timeout_seconds:g}"}

    with workbench(("kafka", "postgres"), progress.say) as bench:

        def run(event: str, update: Update) -> Mapping[str, float]:
            return Handover(bench, settings, update).run(event)

        entries = [Entry(Contender(event), partial(run, event)) for event in (LEAVES, DIES, JOINS)]
        runs = in_turn(progress, entries, rounds, [STANDSTILL])
    question = f"Workers that come and go: how long a partition stands still, session timeout {session_timeout_seconds:g} s"
    contenders = [entry.contender for entry in entries]
    return Report("handover", question, METHOD, contenders, QUANTITIES, targets(session_timeout_seconds), runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--session-timeout-seconds", type=click.FloatRange(6, 300), default=SESSION_TIMEOUT_SECONDS, show_default=True)
@rounds_option
@save_option
def main(*, session_timeout_seconds: float, rounds: int, save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    finish(progress, measure(progress, session_timeout_seconds=session_timeout_seconds, rounds=rounds), save)


if __name__ == "__main__":
    main()
