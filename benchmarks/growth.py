"""Whether a record costs the same when there is more of everything: rows in the table, partitions, duplicates, workers.

    python -m benchmarks.growth [--rows 20000000] [--records 1000000] [--rounds 3] [--only WORD]… [--keep DIRECTORY]

The tables of 5 and 20 million rows take 8 GB of disk and some minutes to make; ``--keep`` keeps them for the next time.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from benchmarks.filling import DUPLICATE_DISTANCE, SENT_AT_MS, each_twice, fill_topic, login_messages, with_dead_letters
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
from benchmarks.topic_run import run_peer
from benchmarks.topics import TopicMessage
from benchmarks.workbench import Workbench, workbench
from benchmarks.worker import PARTITIONS, RECORDS, our_worker

ROWS = 20_000_000
STEP_ROWS = 1_000_000
BYTES_A_ROW = 400
"""With its index entry and its share of the WAL."""
MANY_PARTITIONS = 64
DEAD_LETTER_EACH = 100
"""One message in so many is none that can become a row."""
BASE = f"{PARTITIONS} partitions, one worker, an empty table"

RATE = Quantity("records_per_second", "records/s")
QUANTITIES = (
    RATE,
    Quantity("cpu_us", "workers' CPU us a record", 1),
    Quantity("postgres_cpu_us", "Postgres CPU us a record", 1),
    Quantity("memory_mb", "memory MB, all workers"),
    Quantity("other_cores", "cores busy otherwise", 2),
)

METHOD = f"""
- As the worker's benchmark; one thing is changed at a time. The cases take turns in each round, and each is compared with the first
  one of its own round. That one is run once beforehand and not counted.
- Rows that are there already were made by the server itself: the same columns, tokens as long as real ones, in the order of sent
  at, all of them older than the stream. They are in Postgres's cache only as far as shared_buffers goes, and in the system's.
- "Half duplicates": half as many messages, each of them twice in the topic, {DUPLICATE_DISTANCE:,} records apart. A rate is of
  records.
- Several workers share two cores with Kafka and Postgres: the question is only whether all together are slower than one. They
  start together; the moment in which they share out the partitions is in the time.
- Not measured: tables that don't fit into memory.
"""

FILL = """
    INSERT INTO user_logins
        (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, sent_at, message_id)
    SELECT gen_random_uuid()::text, 'android', 'AU' || md5(number::text), 'AU' || md5(number::text) || md5('a' || number / 3),
           'US', 1002003, sent_at::date, sent_at, gen_random_uuid()
    FROM (
        SELECT number, to_timestamp((%(sent_at_ms)s - (%(rows)s - number) / 10 - 1) / 1000.0) AS sent_at
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number
    ) AS made_up
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What is more than usual."""

    name: str
    at_least: float | None = None
    """The share of the first case's rate that is wanted."""
    partitions: int = PARTITIONS
    duplicates: bool = False
    dead_letters: bool = False
    workers: int = 1
    rows_before: int = 0

    def messages(self, records: int) -> Iterator[TopicMessage]:
        """What its topic holds: ``records`` of them."""
        if self.duplicates:
            return each_twice(islice(login_messages(records), records // 2))
        return with_dead_letters(login_messages(records), DEAD_LETTER_EACH) if self.dead_letters else login_messages(records)

    def rows(self, records: int) -> int:
        """How many rows these make."""
        if self.duplicates:
            return records // 2
        return records - records // DEAD_LETTER_EACH if self.dead_letters else records

    def topic(self, records: int) -> str:
        """The name of its topic: cases with the same messages share one."""
        return f"logins-{records}-{self.partitions}{'-twice' * self.duplicates}{'-dead-letters' * self.dead_letters}"


def cases(rows: int) -> list[Case]:
    """The first one is what the others are compared with."""
    return [
        Case(BASE),
        Case(f"{rows // 4:,} rows in the table", 0.85, rows_before=rows // 4),
        Case(f"{rows:,} rows in the table", 0.85, rows_before=rows),
        Case("1 partition", partitions=1),
        Case("16 partitions", partitions=16),
        Case(f"{MANY_PARTITIONS} partitions", 0.8, partitions=MANY_PARTITIONS),
        Case("half duplicates", 0.8, duplicates=True),
        Case("one in a hundred a dead letter", dead_letters=True),
        Case("two workers", 1.0, workers=2),
        Case("four workers", 1.0, workers=4),
    ]


def targets(rows: int) -> Sequence[Target]:
    """Of the issue; for more workers, no worse than one."""
    return [
        Target(f"worker, rate with {case.name}", case.name, RATE.key, case.at_least, at_least=True, against=BASE)
        for case in cases(rows)
        if case.at_least is not None
    ]


class GrowthBenchmark:
    """Cases on one set of servers."""

    def __init__(self, bench: Workbench, progress: Progress, records: int) -> None:
        self._bench, self._progress, self._records = bench, progress, records

    def entry(self, case: Case) -> Entry:
        """One case."""
        return Entry(Contender(case.name), lambda update: self._measure(case, update))

    def _measure(self, case: Case, update: Update) -> Mapping[str, float]:
        kafka, topic = self._bench.kafka.bootstrap_servers, case.topic(self._records)
        fill_topic(kafka, topic, case.partitions, case.messages(self._records), self._records, say=self._progress.say)
        bench = self._bench if not case.rows_before else self.full_table(case.rows_before, update)
        if not case.rows_before:
            bench.empty_tables()
        rows = case.rows(self._records)
        figures = run_peer(
            bench,
            our_worker(self._records),
            topic,
            case.partitions,
            rows,
            copies=case.workers,
            on_progress=update,
        )
        share = rows / self._records
        return {
            RATE.key: figures["rows_per_second"] / share,
            "cpu_us": figures["cpu_us"] * share,
            "postgres_cpu_us": figures["postgres_cpu_us"] * share,
            "memory_mb": figures["memory_mb"],
            "other_cores": figures["other_cores"],
        }

    def full_table(self, rows: int, update: Update) -> Workbench:
        """The same servers with a database whose table has these rows and no others."""
        bench = self._bench.with_database(f"rows_{rows}")
        with bench.session() as ask:
            ask("TRUNCATE dead_letters, stream_positions")
            ask("DELETE FROM user_logins WHERE sent_at >= to_timestamp(%(since)s)", {"since": SENT_AT_MS / 1000})
            have: int = ask("SELECT count(*) FROM user_logins")[0][0]
            if have != rows:
                self._fill(bench, rows, update)
            ask("VACUUM (ANALYZE) user_logins")
            ask("CHECKPOINT")
        return bench

    def _fill(self, bench: Workbench, rows: int, update: Update) -> None:
        free = shutil.disk_usage(bench.directory).free
        if free < 2 * rows * BYTES_A_ROW:
            raise NoFiguresError(
                f"{rows:,} rows need {2 * rows * BYTES_A_ROW / 2**30:.0f} GiB of disk, {free / 2**30:.0f} are free"
            )
        with bench.session() as ask:
            ask("TRUNCATE user_logins")
            for first in range(1, rows + 1, STEP_ROWS):
                last = min(first + STEP_ROWS - 1, rows)
                ask(FILL, {"sent_at_ms": SENT_AT_MS, "rows": rows, "first": first, "last": last})
                update(f"{last:,} rows made")


def measure(
    progress: Progress, *, rows: int = ROWS, records: int = RECORDS, rounds: int, only: Sequence[str] = (), keep: Path | None
) -> Report:
    """Run the benchmark."""
    with workbench(("kafka", "postgres"), progress.say, keep) as bench:
        benchmark = GrowthBenchmark(bench, progress, records)
        every = [benchmark.entry(case) for case in cases(rows)]
        progress.say("a round that does not count, so that broker and database are warm")
        in_turn(progress, every[:1], 1, [RATE])
        entries = wanted(every, only)
        runs = in_turn(progress, entries, rounds, [RATE])
    question = f"One worker, {records:,} records, and more of everything"
    return Report("growth", question, METHOD, [entry.contender for entry in entries], QUANTITIES, targets(rows), runs)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--rows", type=click.IntRange(10_000, 200_000_000), default=ROWS, show_default=True, help="In the table already.")
@click.option("--records", type=click.IntRange(10_000), default=RECORDS, show_default=True)
@rounds_option
@only_option
@keep_option
@save_option
def main(*, rows: int, records: int, rounds: int, only: tuple[str, ...], keep: Path | None, save: Path | None) -> None:
    """Run it as a command."""
    progress = Progress()
    finish(progress, measure(progress, rows=rows, records=records, rounds=rounds, only=only, keep=keep), save)


if __name__ == "__main__":
    main()
