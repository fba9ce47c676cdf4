"""How many rows a second one worker writes from a full topic, and what a row costs; beside it peers and limits.

python -m benchmarks.worker [--records 1000000] [--rounds 3] [--partitions 4] [--only NAME]… [--keep DIRECTORY]
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from benchmarks import filling, limits
from benchmarks.machine import PROJECT
from benchmarks.meter import Meter
from benchmarks.peer import Peer, Servers
from benchmarks.peers import TOPIC_PEERS
from benchmarks.report import Contender, Report, Run, Target
from benchmarks.session import NoFiguresError, Progress, finish, keep_option, rounds_option, save_option
from benchmarks.topic_run import QUANTITIES, run_peer
from benchmarks.workbench import FAUST, Workbench, workbench
from dev_servers.process import Launch

OURS = "login-stream worker"
DRAIN = "limit: read the topic, do nothing"
COPY = "limit: COPY, one transaction"
COPY_IN_PARTS = "limit: COPY, 5,000 rows a transaction"
COPIES = {COPY: 0, COPY_IN_PARTS: 5_000}
LIMITS = (DRAIN, *COPIES)
LIMIT_SECONDS_MAX = 300.0
RATE = QUANTITIES[0]

TARGETS = (
    Target("worker, share of the limit (COPY)", OURS, RATE.key, 0.4, at_least=True, against=COPY),
    Target("worker, CPU us a row", OURS, "cpu_us", 8),
    Target("Postgres, CPU us a row", OURS, "postgres_cpu_us", 8),
    *(
        Target(f"worker, rate against {name}", OURS, RATE.key, ratio, at_least=True, against=name)
        for name, ratio in {"plain Faust agent": 20, "Quix Streams": 6, "Redpanda Connect": 2}.items()
    ),
)

METHOD = """
- One process of ours, one of each peer; Kafka, Postgres and that process share the machine. The topic is full before the start.
  Each run has a new consumer group and an emptied table with its unique index. Postgres has fsync and synchronous_commit on.
- The rate is of the rows after the first commit, from the first commit to the last, by Postgres's own commit times. CPU is that of
  the whole process tree over the same span. Start-up is not in it and stands apart.
- A run whose table does not hold exactly the topic's rows, both fields masked, has no figures.
- Limits: "read the topic" is aiokafka's getmany, which is under Faust, without a look at any record. COPY takes the rows that our
  worker has just written and writes them into the same table, emptied, over one connection; it checks no position and no conflict.
- Not measured: more than one broker, a network, a topic that is being written to (see the latency), records that are no logins.
"""


def our_worker(records: int, settings: Mapping[str, str] | None = None) -> Peer:
    """The worker as its users start it."""

    def command(servers: Servers) -> Launch:
        return Launch([*FAUST, "worker"], {**servers.environment, **(settings or {})}, PROJECT, stop_seconds=30.0)

    return Peer(OURS, "each record exactly once: position and rows in one statement", records, command)


def run_limit(bench: Workbench, name: str, arguments: Sequence[str | Path]) -> Mapping[str, float]:
    """One of :mod:`benchmarks.limits`. Raises :class:`NoFiguresError`."""
    child = bench.launch(name, Launch([sys.executable, "-m", "benchmarks.limits", *arguments], directory=PROJECT))
    try:
        with Meter({"peer": child.pid, **bench.pids}) as meter:
            code = child.wait(LIMIT_SECONDS_MAX)
    finally:
        child.stop()
    output = child.log_file.read_text()
    if code != 0:
        raise NoFiguresError(f"failed with exit code {code}", output)
    limit = limits.parsed(output)
    span = (limit.since, limit.until)
    per_record = 1e6 / limit.records
    return {
        "rows_per_second": limit.records_per_second,
        "cpu_us": limit.cpu_seconds * per_record,
        "postgres_cpu_us": meter.cpu("postgres", *span) * per_record,
        "kafka_cpu_us": meter.cpu("kafka", *span) * per_record,
        "memory_mib": meter.resident_most("peer") / 2**20,
        "other_cores": meter.other_cores(*span),
    }


class WorkerBenchmark:
    """Contenders on their topics; ``only``: words, of which a contender's name must have one."""

    def __init__(self, bench: Workbench, progress: Progress, records: int, partitions: int, only: Sequence[str]) -> None:
        self._bench, self._progress = bench, progress
        self._records, self._partitions = records, partitions
        self._only = [word.lower() for word in only]
        self._ours = our_worker(records)
        self._peers = [peer for peer in TOPIC_PEERS if self._wanted(peer.name)]

    @property
    def contenders(self) -> list[Contender]:
        """The table's rows."""
        fewer = {peer: f"{peer.records:,} records; " if peer.records < self._records else "" for peer in self._peers}
        every = [
            Contender(OURS, self._ours.note),
            *(Contender(peer.name, fewer[peer] + peer.note) for peer in self._peers),
            *(Contender(limit) for limit in LIMITS),
        ]
        return [contender for contender in every if self._wanted(contender.name)]

    def run(self, rounds: int) -> Iterator[Run]:
        """All contenders in turn in each round."""
        runnable = []
        for peer in self._peers:
            if reason := peer.missing():
                self._progress.say(f"{peer.name}: not run, {reason}")
                yield Run(peer.name, 1, problem=f"not run: {reason}")
            else:
                runnable.append(peer)
        topics = {peer: self._fill(peer) for peer in (self._ours, *runnable)}
        with self._progress.step("reading the topic once, so that the broker is warm"):
            self._drain(topics[self._ours])
        for number in range(1, rounds + 1):
            if self._wanted(DRAIN):
                yield self._attempt(DRAIN, number, lambda _: self._drain(topics[self._ours]))
            if self._wanted(OURS):
                yield (written := self._attempt(OURS, number, partial(self._run, self._ours, topics[self._ours])))
                # From here to the next run the table holds what our worker wrote, which the limit takes.
                for name, rows in COPIES.items():
                    if written.problem is None and self._wanted(name):
                        yield self._attempt(name, number, partial(self._copy, rows))
            for peer in runnable:
                yield self._attempt(peer.name, number, partial(self._run, peer, topics[peer]))

    def _wanted(self, name: str) -> bool:
        return not self._only or any(word in name.lower() for word in self._only)

    def _attempt(self, name: str, number: int, measure: Callable[[Callable[[str], None]], Mapping[str, float]]) -> Run:
        return self._progress.attempt(name, number, RATE, measure)

    def _drain(self, topic: str) -> Mapping[str, float]:
        return run_limit(self._bench, "drain", ["drain", self._bench.kafka.bootstrap_servers, topic, str(self._records)])

    def _copy(self, rows: int, _: Callable[[str], None]) -> Mapping[str, float]:
        return run_limit(self._bench, "copy", ["copy", self._bench.postgres.dsn, str(rows)])

    def _run(self, peer: Peer, topic: str, update: Callable[[str], None]) -> Mapping[str, float]:
        self._bench.empty_tables()
        rows = min(peer.records, self._records)
        return run_peer(self._bench, peer, topic, self._partitions, rows, on_progress=update)

    def _fill(self, peer: Peer) -> str:
        records = min(peer.records, self._records)
        form = "" if peer.body is None else "-" + "".join(filter(str.isalnum, peer.name.lower()))
        topic = f"logins-{records}-{self._partitions}{form}"
        filling.fill_topic(
            self._bench.kafka.bootstrap_servers,
            topic,
            self._partitions,
            filling.login_messages(records),
            records,
            body=peer.body,
            say=self._progress.say,
        )
        return topic


def measure(
    progress: Progress,
    *,
    records: int = 1_000_000,
    partitions: int = 4,
    rounds: int = 3,
    only: Sequence[str] = (),
    keep: Path | None = None,
) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "postgres"), progress.say, keep) as bench:
        benchmark = WorkerBenchmark(bench, progress, records, partitions, only)
        runs = tuple(benchmark.run(rounds))
        question = f"One worker, {records:,} logins in {partitions} partitions to rows with the unique index"
        return Report("worker", question, METHOD, benchmark.contenders, QUANTITIES, TARGETS, runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--records", type=click.IntRange(1_000), default=1_000_000, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 1_000), default=4, show_default=True)
@click.option("--only", multiple=True, metavar="WORD", help="Only contenders with this word in their name. Can be given again.")
@rounds_option
@keep_option
@save_option
def main(*, records: int, partitions: int, only: tuple[str, ...], rounds: int, keep: Path | None, save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    report = measure(progress, records=records, partitions=partitions, rounds=rounds, only=only, keep=keep)
    finish(progress, report, save)


if __name__ == "__main__":
    main()
