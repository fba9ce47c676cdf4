"""Fewer connections than a worker would open: those that it has must do."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg2

from crash.faults import fault
from crash.faults.postgres import ROWS, SESSIONS, sessions, total
from crash.faults.postgres_sessions import replace_workers, take_all
from crash.system import Setup, System
from dev_servers.ports import HOST

ONE_WORKER = Setup(workers=1)
"""With all partitions, each of which would have a connection of its own."""
LIMIT = 2
LOCK_SECONDS = 1.0
SHORTAGE_SECONDS = 15.0
BEHIND_MAX = 300
"""Records behind the log's end: what a second of the load brings."""
KEEPS_UP_SECONDS = 10.0


@contextmanager
def _asking(system: System) -> Iterator[Any]:
    """A connection that is there before there are no more, in autocommit."""
    with closing(psycopg2.connect(system.dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor


def _prove_that_more_are_wanted(system: System, cursor: Any) -> None:
    """No partition can write for a moment, so that each wants a connection."""
    cursor.execute("BEGIN; LOCK TABLE user_logins IN EXCLUSIVE MODE")
    try:
        (worker,) = system.workers
        system.prove("more connections are refused", lambda: "database_connections_limited" in system.log(worker))
        system.rest(LOCK_SECONDS)
    finally:
        cursor.execute("ROLLBACK")


def _wait_until_it_keeps_up(system: System, cursor: Any) -> None:
    def behind() -> int:
        cursor.execute("SELECT sum(next_offset) FROM stream_positions")
        return sum(system.log_ends().values()) - int(cursor.fetchone()[0])

    system.wait("it keeps up with the load", lambda: behind() < BEHIND_MAX, KEEPS_UP_SECONDS)


@fault(
    "postgres-full-but-for-one",
    "A worker with one connection, on a server that gives no more, keeps up with the load.",
    recovery_seconds=15,
    setup=ONE_WORKER,
)
def full_but_for_one(system: System) -> Iterator[str]:
    """The others of the worker's are ended, and all that is free is taken."""
    system.moment()
    (worker,) = system.workers
    with ExitStack() as others:
        cursor = others.enter_context(_asking(system))
        take_all(system, others)
        kept, *more = sorted(sessions_by(cursor))
        system.freeze(worker)  # so that it is not quicker than we are
        try:
            for pid in more:
                cursor.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
            take_all(system, others)
        finally:
            system.thaw(worker)
        _prove_that_more_are_wanted(system, cursor)
        before = total(system, ROWS)
        system.rest(SHORTAGE_SECONDS)
        _wait_until_it_keeps_up(system, cursor)
        assert sessions_by(cursor) == {kept}, "it had that one connection alone"
        rows = total(system, ROWS) - before
    yield f"{rows:,.0f} rows over one connection"


def sessions_by(cursor: Any) -> set[int]:
    """The worker's sessions, asked over a connection that is there."""
    cursor.execute(f"SELECT pid {SESSIONS}")
    return {pid for (pid,) in cursor.fetchall()}


@fault(
    "postgres-login-with-connection-limit",
    "A worker whose login may have fewer connections than it has partitions keeps up with the load.",
    recovery_seconds=15,
    setup=ONE_WORKER,
)
def login_with_connection_limit(system: System) -> Iterator[str]:
    """CONNECTION LIMIT 2, and four partitions."""
    user, password = f"worker_{secrets.token_hex(4)}", secrets.token_hex(16)
    system.query(f"CREATE ROLE {user} LOGIN PASSWORD '{password}' CONNECTION LIMIT {LIMIT} IN ROLE stream_writer")
    file = system.directory / "password"
    file.touch(mode=0o600)
    file.write_text(password)
    database = system.dsn.rpartition("/")[2]
    dsn = f"postgresql://{user}@{HOST}:{system.servers.postgres.port}/{database}"
    replace_workers(system, POSTGRES_DSN=dsn, POSTGRES_PASSWORD_FILE=str(file))
    with _asking(system) as cursor:
        _prove_that_more_are_wanted(system, cursor)
        before = total(system, ROWS)
        system.rest(SHORTAGE_SECONDS)
        _wait_until_it_keeps_up(system, cursor)
    assert len(sessions(system)) == LIMIT
    yield f"{total(system, ROWS) - before:,.0f} rows over {LIMIT} connections"
