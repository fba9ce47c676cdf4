"""How many seconds pass from the time that SQS gives a message to its row being visible to another session; the whole chain.

python -m benchmarks.latency [--rates 100,2000] [--seconds 20] [--warm-up-seconds 10] [--rounds 3]
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from benchmarks import sender
from benchmarks.bridge import our_bridge
from benchmarks.machine import PROJECT
from benchmarks.meter import Meter
from benchmarks.queue_run import fill_queue
from benchmarks.report import Contender, Quantity, Report, Target, percentile
from benchmarks.session import Entry, NoFiguresError, Progress, Update, finish, in_turn, rounds_option, save_option
from benchmarks.topic_run import commits
from benchmarks.topics import make_topic, remove_topic
from benchmarks.visibility import POLL_SECONDS, Snapshot, SnapshotWatch, visible_at
from benchmarks.workbench import Workbench, workbench
from benchmarks.worker import our_worker
from dev_servers.made_up_logins import made_up_logins
from dev_servers.process import ChildProcess, Launch
from dev_servers.raw_queue import RawQueue

PARTITIONS = 4
RATES = (100, 2_000)
SECONDS = 20.0
WARM_UP_SECONDS = 10.0
TOP_RATE = "top rate"
HALF = "half of the top rate"
TOP_RATE_MESSAGES = 40_000
CHAIN_SECONDS_MAX = 120.0
"""How long the chain may take to write what was sent."""
SENT_SHARE_MIN = 0.98
"""A sender that falls further behind its schedule has not put the chain to what was asked."""
PROCESSES = ("bridge", "worker", "elasticmq", "kafka", "postgres")

RATE = Quantity("messages_per_second", "messages/s")
P99 = Quantity("p99_seconds", "p99 s", 3)
QUANTITIES = (
    RATE,
    Quantity("p50_seconds", "p50 s", 3),
    P99,
    Quantity("p999_seconds", "p99.9 s", 3),
    Quantity("most_seconds", "most s", 3),
    Quantity("late_seconds", "sender late, most s", 3),
    *(Quantity(f"{name}_cores", f"{name} cores", 2) for name in PROCESSES),
)

TARGETS = (
    Target("seconds from sent to visible, p99 at 100/s", "100/s", P99.key, 0.5),
    Target("seconds from sent to visible, p99 at 2,000/s", "2,000/s", P99.key, 0.5),
    Target("seconds from sent to visible, p99 at half of the top rate", HALF, P99.key, 1.0),
)

METHOD = f"""
- The whole chain on one machine: a sender, ElasticMQ, one bridge, Kafka, one worker, Postgres with fsync and synchronous_commit on.
  The topic has {PARTITIONS} partitions; all settings are the defaults.
- Open loop: messages are sent when they are due, whatever became of those before. At 100/s one by one, at higher rates up to ten
  together, as SQS batches are. A sender that does not keep its schedule is told apart ("sender late"); below
  {SENT_SHARE_MIN:.0%} of its rate there are no figures.
- From SentTimestamp (ElasticMQ's clock, milliseconds) to the row's transaction being in the snapshot of another session, which asks
  every {POLL_SECONDS * 1000:g} ms: that is the resolution. The warm-up is left out. Percentiles are values that were measured.
- "{TOP_RATE}" is the chain's own: rows/s from a full queue, from the first commit to the last, nobody sending.
- A run in which not every message became exactly one row has no figures.
- Not measured: the real SQS and a network, which add their own time.
"""

SENT_ROWS = "SELECT extract(epoch FROM sent_at)::float8, xmin::text::bigint FROM user_logins ORDER BY sent_at"


@contextmanager
def chain(bench: Workbench) -> Iterator[dict[str, ChildProcess]]:
    """A worker that has claimed its partitions, then a bridge, on a new topic and an empty table.

    In this order: what waits in the queue would else wait in the topic, and the worker's rate would pass for the chain's.
    """
    kafka = bench.kafka.bootstrap_servers
    topic = f"latency-{time.time_ns()}"
    make_topic(kafka, topic, PARTITIONS)
    bench.empty_tables()
    servers = bench.servers(topic, PARTITIONS)
    children: dict[str, ChildProcess] = {}
    try:
        children["worker"] = bench.launch("worker", our_worker(0).command(servers))
        children["worker"].wait_until(
            lambda: bench.query("SELECT count(*) FROM stream_positions")[0][0] == PARTITIONS, CHAIN_SECONDS_MAX
        )
        children["bridge"] = bench.launch("bridge", our_bridge(0).command(servers))
        yield children
    finally:
        for child in children.values():
            child.stop()
        remove_topic(kafka, topic)


def wait_for_rows(bench: Workbench, children: Iterable[ChildProcess], rows: int, update: Update) -> None:
    """Raises :class:`NoFiguresError` when they don't come, or more do, and :class:`DevServerError` when a child has ended."""
    deadline = time.monotonic() + CHAIN_SECONDS_MAX
    with bench.session() as ask:
        while (found := ask("SELECT count(*) FROM user_logins")[0][0]) < rows:
            update(f"{found:,} rows")
            for child in children:
                child.check()
            if time.monotonic() > deadline:
                raise NoFiguresError(f"{found:,} rows instead of {rows:,} after {CHAIN_SECONDS_MAX:.0f} s")
            time.sleep(0.2)
    if found > rows:
        raise NoFiguresError(f"{found:,} rows instead of {rows:,}")


def delays(rows: Sequence[tuple[float, int]], snapshots: Sequence[Snapshot], warm_up_seconds: float) -> list[float]:
    """Seconds from sent to visible, in order of size, without the warm-up. A row: when it was sent, and its transaction."""
    visible = {transaction: visible_at(snapshots, transaction) for transaction in {transaction for _, transaction in rows}}
    begin = min(sent_at for sent_at, _ in rows) + warm_up_seconds
    return sorted(visible[transaction] - sent_at for sent_at, transaction in rows if sent_at >= begin)


class LatencyBenchmark:
    """The cases; the last top rate decides what half of it is."""

    def __init__(self, bench: Workbench, seconds: float, warm_up_seconds: float) -> None:
        self._bench = bench
        self._seconds, self._warm_up_seconds = seconds, warm_up_seconds
        self._top_rate: float | None = None

    def entries(self, rates: Sequence[int]) -> list[Entry]:
        """The top rate first."""
        return [
            Entry(Contender(TOP_RATE, f"{TOP_RATE_MESSAGES:,} messages wait in the queue"), self._measure_top_rate),
            *(Entry(Contender(f"{rate:,}/s"), partial(self._measure, rate)) for rate in rates),
            Entry(Contender(HALF), self._measure_half),
        ]

    def _measure_top_rate(self, update: Update) -> Mapping[str, float]:
        bench = self._bench
        bodies = [login.body() for login in made_up_logins(TOP_RATE_MESSAGES)]
        fill_queue(bench.elasticmq.queue_url, bodies)
        since = time.time()
        with chain(bench) as children, self._meter(children) as meter:
            wait_for_rows(bench, children.values(), len(bodies), update)
        timed = commits(bench, since)
        self._top_rate = timed.rows_per_second
        return {RATE.key: timed.rows_per_second, **self._cores(meter, timed.first_at, timed.last_at)}

    def _measure_half(self, update: Update) -> Mapping[str, float]:
        if self._top_rate is None:
            raise NoFiguresError("the top rate is not known")
        return self._measure(self._top_rate / 2, update)

    def _measure(self, rate: float, update: Update) -> Mapping[str, float]:
        bench = self._bench
        with RawQueue(bench.elasticmq.queue_url) as queue:
            queue.purge()
        seconds = self._warm_up_seconds + self._seconds
        with chain(bench) as children, self._meter(children) as meter, SnapshotWatch(bench.dsn) as watch:
            arguments = [bench.elasticmq.queue_url, f"{rate:.0f}", f"{seconds:.0f}"]
            since = time.time() + self._warm_up_seconds
            sending = bench.launch("sender", Launch([sys.executable, "-m", "benchmarks.sender", *arguments], directory=PROJECT))
            if sending.wait(seconds + CHAIN_SECONDS_MAX) != 0:
                raise NoFiguresError("the sender failed", sending.log_file.read_text())
            until = time.time()
            sent = sender.parsed(sending.log_file.read_text())
            wait_for_rows(bench, children.values(), sent.messages, update)
        if sent.messages_per_second < SENT_SHARE_MIN * rate:
            raise NoFiguresError(f"the sender sent {sent.messages_per_second:,.0f}/s instead of {rate:,.0f}/s")
        rows = [(sent_at, transaction) for sent_at, transaction in bench.query(SENT_ROWS)]
        ordered = delays(rows, watch.snapshots, self._warm_up_seconds)
        return {
            RATE.key: sent.messages_per_second,
            "p50_seconds": percentile(ordered, 0.5),
            P99.key: percentile(ordered, 0.99),
            "p999_seconds": percentile(ordered, 0.999),
            "most_seconds": ordered[-1],
            "late_seconds": sent.late_seconds_most,
            **self._cores(meter, since, until),
        }

    def _meter(self, children: Mapping[str, ChildProcess]) -> Meter:
        return Meter({**self._bench.pids, **{name: child.pid for name, child in children.items()}})

    @staticmethod
    def _cores(meter: Meter, since: float, until: float) -> Mapping[str, float]:
        return {f"{name}_cores": meter.cpu(name, since, until) / (until - since) for name in PROCESSES}


def measure(
    progress: Progress,
    *,
    rates: Sequence[int] = RATES,
    seconds: float = SECONDS,
    warm_up_seconds: float = WARM_UP_SECONDS,
    rounds: int,
) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "elasticmq", "postgres"), progress.say) as bench:
        entries = LatencyBenchmark(bench, seconds, warm_up_seconds).entries(rates)
        runs = in_turn(progress, entries, rounds, [RATE, P99])
    question = f"The whole chain: seconds from sent to visible, {seconds:.0f} s at each rate"
    return Report("latency", question, METHOD, [entry.contender for entry in entries], QUANTITIES, TARGETS, runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--rates", default=",".join(map(str, RATES)), show_default=True, help="Beside half of the top rate.")
@click.option("--seconds", type=click.FloatRange(1, 3_600), default=SECONDS, show_default=True)
@click.option("--warm-up-seconds", type=click.FloatRange(0, 600), default=WARM_UP_SECONDS, show_default=True)
@rounds_option
@save_option
def main(*, rates: str, seconds: float, warm_up_seconds: float, rounds: int, save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    chosen = [int(rate) for rate in rates.split(",")]
    finish(progress, measure(progress, rates=chosen, seconds=seconds, warm_up_seconds=warm_up_seconds, rounds=rounds), save)


if __name__ == "__main__":
    main()
