"""What is in Postgres: locked, slow, missing, or changed by others."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from crash.faults import fault
from crash.faults.postgres import (
    PARTITIONS,
    QUICK_TIMEOUTS,
    REBALANCES,
    RETRIES,
    over_partitions,
    prove_retries,
    reload_with,
    total,
)
from crash.system import Setup, System

LOCK = 17
"""The number of an advisory lock."""

_TRIGGER = """
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
CREATE TRIGGER spoil BEFORE INSERT ON user_logins FOR EACH {each} EXECUTE FUNCTION spoil()"""


@contextmanager
def _transaction(system: System) -> Iterator[Any]:
    """The cursor of another session in a transaction, which is undone at the end."""
    with closing(psycopg2.connect(system.dsn)) as connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def _trigger(system: System, body: str, each: str) -> Iterator[None]:
    """What a row or statement meets on its way into ``user_logins``."""
    system.query(_TRIGGER.format(body=body, each=each))
    try:
        yield
    finally:
        system.query("DROP FUNCTION spoil CASCADE")


def _locked(system: System, lock: str) -> None:
    """Hold a lock until statements have timed out over it."""
    before = total(system, RETRIES, sqlstate_class="57")
    system.moment()
    with _transaction(system) as cursor:
        cursor.execute(lock)
        prove_retries(system, before, sqlstate_class="57")
        system.rest(4)


@fault(
    "postgres-position-locked",
    "Positions that another session has locked are waited for.",
    recovery_seconds=15,
    setup=Setup(settings=QUICK_TIMEOUTS),
    soak=True,
)
def position_locked(system: System) -> Iterator[str]:
    """As a session does that was left in a transaction."""
    rebalances = total(system, REBALANCES)
    _locked(system, "SELECT 1 FROM stream_positions FOR UPDATE")
    yield "statements timed out over locked rows"
    assert total(system, REBALANCES) == rebalances, "the workers stayed in their group"


@fault(
    "postgres-table-locked",
    "A migration that holds the table for long is waited for.",
    recovery_seconds=15,
    setup=Setup(settings=QUICK_TIMEOUTS),
    soak=True,
)
def table_locked(system: System) -> Iterator[str]:
    """ACCESS EXCLUSIVE, for longer than a statement may run."""
    rebalances = total(system, REBALANCES)
    _locked(system, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
    yield "statements timed out over the locked table"
    assert total(system, REBALANCES) == rebalances, "the workers stayed in their group"


@fault(
    "postgres-statement-timeout",
    "A write that Postgres can't finish in time is tried until it can.",
    recovery_seconds=15,
    setup=Setup(settings=QUICK_TIMEOUTS),
    soak=True,
)
def statement_timeout(system: System) -> Iterator[str]:
    """As a slow disk does: each write takes longer than it may, and is ended in the middle."""
    before = total(system, RETRIES, sqlstate_class="57")
    system.moment()
    with _trigger(system, "PERFORM pg_sleep(10);", "STATEMENT"):
        prove_retries(system, before, sqlstate_class="57")
        system.rest(3)
    yield "statements were ended at their timeout"


@fault(
    "postgres-deadlock",
    "A write that Postgres ends because of a deadlock is sent again.",
    recovery_seconds=15,
    soak=True,
)
def deadlock(system: System) -> Iterator[str]:
    """Another session has what a row needs and wants a position; the write has that, and is the one that is ended."""
    reload_with(system, "SET deadlock_timeout = '2s'")  # a session looks for a deadlock once, so long after it began to wait
    try:
        with _trigger(system, f"PERFORM pg_advisory_xact_lock_shared({LOCK});", "ROW"):
            for _ in range(3):
                before = total(system, RETRIES, sqlstate_class="40")
                system.moment()
                with _transaction(system) as cursor:
                    cursor.execute(f"SET deadlock_timeout = '20s'; SELECT pg_advisory_xact_lock({LOCK})")
                    system.wait("a write waits for us", lambda: _waiting(system))
                    cursor.execute("SELECT partition FROM stream_positions FOR UPDATE SKIP LOCKED")
                    free = [partition for (partition,) in cursor.fetchall()]
                    cursor.execute("SELECT 1 FROM stream_positions WHERE NOT partition = ANY(%s) LIMIT 1 FOR UPDATE", [free])
                system.mended()
                prove_retries(system, before, sqlstate_class="40")
    finally:
        reload_with(system, "RESET deadlock_timeout")
    yield "three times a write was ended with 40P01"


def _waiting(system: System) -> int:
    """How many sessions wait for the advisory lock."""
    ((number,),) = system.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    return int(number)


@fault(
    "postgres-serialization-failure",
    "A write that can't be serialized is sent again.",
    recovery_seconds=15,
    soak=True,
)
def serialization_failure(system: System) -> Iterator[str]:
    """Raised by a trigger: at the isolation that the worker sets, Postgres has no other way to it."""
    before = total(system, RETRIES, sqlstate_class="40")
    system.moment()
    with _trigger(system, "IF random() < 0.5 THEN RAISE serialization_failure; END IF;", "STATEMENT"):
        system.prove("ten writes failed", lambda: total(system, RETRIES, sqlstate_class="40") >= before + 10)
    yield "ten writes failed with 40001"


@fault(
    "postgres-table-missing",
    "Without its table a partition stops, says so, and goes on when the table is back; no record becomes a dead letter for it.",
    recovery_seconds=25,
    soak=True,
)
def table_missing(system: System) -> Iterator[str]:
    """Renamed, as in a migration that went wrong."""
    system.moment()
    system.query("ALTER TABLE user_logins RENAME TO renamed")
    try:
        system.prove("every partition stops", lambda: over_partitions(system, "stream_partition_stopped") == PARTITIONS)
    finally:
        system.query("ALTER TABLE renamed RENAME TO user_logins")
    for name in system.workers:
        assert re.search(r"partition_stopped.*42P01", system.log(name)), "the log says why"
    yield "every partition stopped with 42P01"


@fault(
    "postgres-positions-changed",
    "Positions that were set back, or are gone, are read from again; what is there already is not written twice.",
    recovery_seconds=15,
)
def positions_changed(system: System) -> Iterator[str]:
    """As a table does that was restored from a backup."""
    system.moment()
    system.query("UPDATE stream_positions SET next_offset = greatest(0, next_offset - 50) WHERE partition % 2 = 0")
    system.query("DELETE FROM stream_positions WHERE partition % 2 = 1")
    system.mended()
    system.prove(
        "every partition was read again",
        lambda: sum(system.log(name).count("position_changed") for name in system.workers) >= PARTITIONS,
    )
    yield "every partition was read again from an earlier position"
    assert total(system, "stream_duplicates_skipped_total") >= PARTITIONS
