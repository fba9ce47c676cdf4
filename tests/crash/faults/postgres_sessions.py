"""The workers' sessions in Postgres: ended, refused, or without a place."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg2

from crash.faults import fault
from crash.faults.postgres import RETRIES, SESSIONS, sessions
from crash.system import System
from dev_servers.ports import HOST


def replace_workers(system: System, **settings: str) -> None:
    """New workers with these settings in the place of the old ones: for what is not known before the servers run."""
    old = system.workers
    for _ in old:
        system.start_worker(**settings)
    system.processes.wait_ready()
    codes = system.processes.stop(*old)
    assert set(codes.values()) == {0}, f"workers end in order: {codes}"
    system.wait_flowing()


@fault(
    "postgres-sessions-terminated",
    "A session that is ended by an administrator is replaced.",
    recovery_seconds=15,
    soak=True,
)
def sessions_terminated(system: System) -> Iterator[str]:
    """Ten times, each at another moment of a write or between two."""

    def end_them() -> None:
        before = system.wait("the workers have sessions", lambda: sessions(system))
        system.query(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
        system.mended()
        system.prove("a new session took an ended one's place", lambda: sessions(system) - before)

    for _ in range(10):
        system.moment(0.3)
        end_them()
    yield "the workers' sessions were ended ten times, and others came"


@fault(
    "postgres-password-changed",
    "A password is read again for each connection: a new one needs no restart.",
    recovery_seconds=15,
    soak=True,
)
def password_changed(system: System) -> Iterator[str]:
    """First in Postgres, then, when the workers have been refused, in their file."""
    user, old, new = f"worker_{secrets.token_hex(4)}", secrets.token_hex(16), secrets.token_hex(16)
    system.query(f"CREATE ROLE {user} LOGIN PASSWORD '{old}' IN ROLE stream_writer")
    file = system.directory / "password"
    file.touch(mode=0o600)
    file.write_text(old)
    database = system.dsn.rpartition("/")[2]
    dsn = f"postgresql://{user}@{HOST}:{system.servers.postgres.port}/{database}"
    replace_workers(system, POSTGRES_DSN=dsn, POSTGRES_PASSWORD_FILE=str(file))
    system.moment()
    system.query(f"ALTER ROLE {user} PASSWORD '{new}'")
    try:
        system.query(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
        _prove_all_refused(system, "28", "password authentication failed")
    finally:
        file.write_text(new)
    yield "password authentication failed"
    for name in system.workers:
        assert old not in system.log(name)
        assert new not in system.log(name)


@fault(
    "postgres-connections-used-up",
    "Workers wait for a connection that others have taken.",
    recovery_seconds=15,
    soak=True,
)
def connections_used_up(system: System) -> Iterator[str]:
    """All of max_connections, and then those that the workers had."""
    system.moment()
    workers = system.workers
    with ExitStack() as others:
        administrator = others.enter_context(closing(psycopg2.connect(system.dsn)))
        take_all(system, others)
        system.freeze(*workers)  # so that none is quicker than we are
        try:
            with administrator.cursor() as cursor:
                cursor.execute(f"SELECT pg_terminate_backend(pid, 2000) {SESSIONS}")
            take_all(system, others)
        finally:
            system.thaw(*workers)
        _prove_all_refused(system, "53", "too many clients already")
        system.rest(2)
    yield "too many clients already"


def _prove_all_refused(system: System, sqlstate_class: str, words: str) -> None:
    """Wait until each worker was refused a session, has counted it under its class, and has logged why."""

    def prove_refused(name: str) -> None:
        system.prove(
            f"{name} is refused",
            lambda: system.metric(name, RETRIES, sqlstate_class=sqlstate_class) > 0 and words in system.log(name),
        )

    for name in system.workers:
        prove_refused(name)


def take_all(system: System, others: ExitStack) -> None:
    """Take each connection that the server still gives."""
    while True:
        try:
            others.enter_context(closing(psycopg2.connect(system.dsn)))
        except psycopg2.OperationalError as error:
            if "too many clients" not in str(error):
                raise
            return
