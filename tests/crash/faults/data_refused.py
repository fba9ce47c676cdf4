"""Rows and dead letters that Postgres refuses."""

import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from crash.faults import fault
from crash.faults.data import DRAIN_SECONDS, behind, letters_by_reason, pace
from crash.faults.postgres import PARTITIONS, over_partitions
from crash.messages import Ending, Message, good
from crash.system import Setup, System
from crash.topic_producer import TopicProducer
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins


def _refused_by_constraint(login: MadeUpLogin) -> Message:
    """A good login, but for the constraint that somebody has added."""
    body = replace(login, device_type="refused").body()
    return Message(body, Ending.DEAD_LETTER, (login.ip, login.device_id), reason="row_refused")


def _some_refused(chance: Random, count: int, share: float) -> Iterator[Message]:
    for login in made_up_logins(count, chance.getrandbits(32)):
        yield _refused_by_constraint(login) if chance.random() < share else good(login)


def _rows_refused(system: System, share: float, records: int) -> str:
    producer = TopicProducer(system)
    system.moment()
    # Postgres logs all it can: the workers' statements hold no raw value, so its log holds none.
    database = system.dsn.rpartition("/")[2]
    for setting in ("log_statement = 'all'", "log_parameter_max_length_on_error = -1", "log_error_verbosity = 'verbose'"):
        system.query(f'ALTER DATABASE "{database}" SET {setting}')
    system.query("ALTER TABLE user_logins ADD CONSTRAINT no_such_device CHECK (device_type <> 'refused')")
    filled_from = time.time()
    producer.send(_some_refused(system.chance, records, share))  # to workers that run, and have prepared what Postgres now refuses
    system.mended()
    filled_to, ends = time.time(), system.log_ends()
    system.wait("what was sent is written", lambda: not behind(system, ends), DRAIN_SECONDS)
    splits = sum(system.metric(worker, "stream_batch_splits_total") for worker in system.workers)
    refused = system.prove("rows were refused", lambda: letters_by_reason(system).get("row_refused", 0))
    system.query("ALTER TABLE user_logins DROP CONSTRAINT no_such_device")
    return f"{refused:,} rows of {records:,} refused: {pace(system, filled_from, filled_to)}, batches halved {splits:,.0f} times"


@fault(
    "rows-refused-1-percent",
    "A row that Postgres refuses (a constraint was added) is one dead letter; all others are written.",
    recovery_seconds=30,
)
def rows_refused_1_percent(system: System) -> Iterator[str]:
    """One row in a hundred, in full windows."""
    yield _rows_refused(system, 0.01, 10_000)


@fault(
    "rows-refused-50-percent",
    "A row that Postgres refuses (a constraint was added) is one dead letter; all others are written, at the pace of one by one.",
    recovery_seconds=60,
)
def rows_refused_50_percent(system: System) -> Iterator[str]:
    """Every second row, in full windows: the most that halving can cost."""
    yield _rows_refused(system, 0.5, 4_000)


@fault(
    "not-null-column-comes-and-goes",
    "While a column of the owner's demands a value, the partitions stop and name it; it goes, and all becomes rows, but a hundred"
    " dead letters at most.",
    recovery_seconds=45,
    setup=Setup(settings={"REFUSED_ROWS_MAX": "25"}),  # of each of four partitions: a hundred together
)
def not_null_column(system: System) -> Iterator[str]:
    """Under load, in one transaction, as a migration of the owner's does it."""
    system.moment()
    system.query("ALTER TABLE user_logins ADD COLUMN tenant text; UPDATE user_logins SET tenant = 'one';"
                 " ALTER TABLE user_logins ALTER COLUMN tenant SET NOT NULL")  # fmt: skip
    try:
        system.prove(
            "every partition stops and names the column",
            lambda: (
                over_partitions(system, "stream_partition_stopped") == PARTITIONS
                and all("tenant" in system.log(name) for name in system.workers)
            ),
            60,
        )
        letters = letters_by_reason(system).get("row_refused", 0)
        assert letters <= 100, f"{letters} dead letters"
        system.rest(3)
    finally:
        system.query("ALTER TABLE user_logins DROP COLUMN tenant")
    if letters := letters_by_reason(system).get("row_refused", 0):
        system.expected["misplaced"] = letters  # good logins, which came by fewer than ten at a time
    yield f"every partition stood still; {letters} dead letters"


@fault(
    "dead-letters-refused",
    "While Postgres takes no dead letter, a partition that has one stops before it and says so; nothing is skipped. It goes on by"
    " itself.",
    recovery_seconds=25,
    setup=Setup(bad_share=0.05),
    soak=True,
)
def dead_letters_refused(system: System) -> Iterator[str]:
    """The workers' role loses the right to store dead letters."""
    system.moment()
    system.query("REVOKE INSERT ON dead_letters FROM stream_writer")
    try:
        stopped = system.prove("a partition has stopped", lambda: over_partitions(system, "stream_partition_stopped"), 30)
        letters = sum(letters_by_reason(system).values())
        system.rest(3)
        assert sum(letters_by_reason(system).values()) == letters
    finally:
        system.query("GRANT INSERT ON dead_letters TO stream_writer")
    yield f"{stopped:.0f} partitions stood still"
