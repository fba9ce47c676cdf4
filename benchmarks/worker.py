"""How many rows a second one worker writes from a full topic, and what a row costs; beside it peers and limits.

python -m benchmarks.worker [--records 1000000] [--rounds 3] [--partitions 4] [--only NAME]… [--keep DIRECTORY]
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from benchmarks import filling
from benchmarks.limit_run import run_limit
from benchmarks.machine import PROJECT
from benchmarks.peer import Peer, Servers
from benchmarks.peers import TOPIC_PEERS
from benchmarks.report import Contender, Report, Target
from benchmarks.session import (
    Entry,
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
from benchmarks.topic_run import QUANTITIES, run_peer
from benchmarks.workbench import FAUST, Workbench, workbench
from dev_servers.process import Launch

OURS = "login-stream worker"
DRAIN = "limit: read the topic, do nothing"
COPY = "limit: COPY, one transaction"
COPY_IN_PARTS = "limit: COPY, 5,000 rows a transaction"
RECORDS = 1_000_000
PARTITIONS = 4
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
  Before the first round the topic is read once, and written to Postgres once: a new Postgres has no WAL files yet to write over.
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


def limit_figures(bench: Workbench, arguments: Sequence[str], records: int) -> Mapping[str, float]:
    """Of one of :mod:`benchmarks.limits`, with ``records`` for rows."""
    limit, meter = run_limit(bench, arguments, records)
    span = (limit.since, limit.until)
    per_record = 1e6 / limit.timed_records
    return {
        "rows_per_second": limit.timed_records / (limit.until - limit.since),
        "cpu_us": limit.cpu_seconds * per_record,
        "postgres_cpu_us": meter.cpu("postgres", *span) * per_record,
        "kafka_cpu_us": meter.cpu("kafka", *span) * per_record,
        "memory_mb": meter.resident_most("peer") / 1e6,
        "other_cores": meter.other_cores(*span),
    }


def filled_topic(bench: Workbench, progress: Progress, peer: Peer, records: int, partitions: int) -> str:
    """The name of a topic that holds what this peer is given, in the form that it reads."""
    form = "" if peer.body is None else "-" + "".join(filter(str.isalnum, peer.name.lower()))
    topic = f"logins-{records}-{partitions}{form}"
    filling.fill_topic(
        bench.kafka.bootstrap_servers,
        topic,
        partitions,
        filling.login_messages(records),
        records,
        body=peer.body,
        say=progress.say,
    )
    return topic


def entries(bench: Workbench, progress: Progress, records: int, partitions: int) -> list[Entry]:
    """Everything that can be measured. The limit COPY follows our worker: it takes the rows that the worker wrote."""

    def peer_entry(peer: Peer) -> Entry:
        rows = min(peer.records, records)

        def measure(update: Update) -> Mapping[str, float]:
            topic = filled_topic(bench, progress, peer, rows, partitions)
            bench.empty_tables()
            return run_peer(bench, peer, topic, partitions, rows, on_progress=update)

        note = peer.note if rows == records else f"{rows:,} records; {peer.note}"
        return Entry(Contender(peer.name, note), measure, peer.missing())

    def drain(_: Update) -> Mapping[str, float]:
        topic = filled_topic(bench, progress, ours, records, partitions)
        return limit_figures(bench, ["drain", bench.kafka.bootstrap_servers, topic, str(records)], records)

    def copy(part_rows: int, _: Update) -> Mapping[str, float]:
        return limit_figures(bench, ["copy", bench.dsn, str(part_rows)], records)

    ours = our_worker(records)
    return [
        Entry(Contender(DRAIN), drain),
        peer_entry(ours),
        Entry(Contender(COPY), partial(copy, 0)),
        Entry(Contender(COPY_IN_PARTS), partial(copy, 5_000)),
        *map(peer_entry, TOPIC_PEERS),
    ]


def measure(
    progress: Progress,
    *,
    records: int = RECORDS,
    partitions: int = PARTITIONS,
    rounds: int,
    only: Sequence[str] = (),
    keep: Path | None,
) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "postgres"), progress.say, keep) as bench:
        every = entries(bench, progress, records, partitions)
        progress.say("a round that does not count, so that broker and database are warm")
        in_turn(progress, every[:2], 1, [RATE])
        chosen = wanted(every, only)
        runs = in_turn(progress, chosen, rounds, [RATE])
    question = f"One worker: {records:,} logins in {partitions} partitions to rows with the unique index"
    return Report("worker", question, METHOD, [entry.contender for entry in chosen], QUANTITIES, TARGETS, runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--records", type=click.IntRange(10_000), default=RECORDS, show_default=True)
@click.option("--partitions", type=click.IntRange(1, 1_000), default=PARTITIONS, show_default=True)
@rounds_option
@only_option
@keep_option
@save_option
def main(*, records: int, partitions: int, only: tuple[str, ...], rounds: int, keep: Path | None, save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    report = measure(progress, records=records, partitions=partitions, rounds=rounds, only=only, keep=keep)
    finish(progress, report, save)


if __name__ == "__main__":
    main()
