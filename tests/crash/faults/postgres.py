"""Postgres itself: restarted, killed, frozen, full, read-only, or refusing whoever comes."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals

import psutil
import psycopg2

from crash.faults import fault
from crash.system import FaultDidNotTakePlaceError, Setup, System
from dev_servers.ports import HOST
from dev_servers.postgres import STOP_MODES

RETRIES = "stream_database_retries_total"
ROWS = "stream_rows_written_total"
REBALANCES = "stream_rebalances_total"

QUICK_TIMEOUTS = {"POSTGRES_STATEMENT_TIMEOUT_SECONDS": "2", "POSTGRES_CONNECT_TIMEOUT_SECONDS": "2"}
"""Else the worker waits for half a minute before it tries again."""

_SESSIONS = "FROM pg_stat_activity WHERE application_name = 'login-stream worker' AND datname = current_database()"


def total(system: System, metric: str, **labels: str) -> float:
    """A metric's sum over the workers that run."""
    return sum(system.metric(name, metric, **labels) for name in system.workers)


def prove_retries(system: System, before: float, **labels: str) -> None:
    """Wait until a statement was tried again that was not before."""
    system.prove(f"a worker tries again {labels or ''}", lambda: total(system, RETRIES, **labels) > before)


def sessions(system: System) -> set[int]:
    """The process ids of the workers' sessions in Postgres."""
    return {pid for (pid,) in system.query(f"SELECT pid {_SESSIONS}")}


def replace_workers(system: System, **settings: str) -> None:
    """New workers with these settings in the place of the old ones: for what is not known before the servers run."""
    old = system.workers
    for _ in old:
        system.start_worker(**settings)
    system.processes.wait_ready()
    codes = system.processes.stop(*old)
    assert set(codes.values()) == {0}, f"workers end in order: {codes}"
    system.wait_flowing()


def _stopped(system: System, stop: Callable[[], object]) -> None:
    """Away until a worker has noticed, and back."""
    before = total(system, RETRIES)
    system.moment()
    stop()
    try:
        prove_retries(system, before)
    finally:
        system.servers.postgres.start()


@fault("postgres-restarted", "Workers wait for Postgres and go on by themselves.", recovery_seconds=15)
def restarted(system: System) -> Iterator[str]:
    """As pg_ctl restart does it: sessions are ended in order (57P01), new ones refused (57P03)."""
    _stopped(system, partial(system.servers.postgres.stop, mode="fast"))
    yield "writes were tried again while Postgres restarted"


@fault(
    "postgres-restarted-smart",
    "A shutdown that waits for its sessions does not stop the workers before it ends.",
    recovery_seconds=15,
)
def restarted_smart(system: System) -> Iterator[str]:
    """New sessions are refused, and those of the workers stay: it would wait for ever."""
    postgres = system.servers.postgres
    system.moment()
    postgres.child.send_signal(STOP_MODES["smart"])
    try:
        system.prove("Postgres refuses new sessions", lambda: "shutting down" in _refusal(system))
        before = total(system, ROWS)
        system.prove("the workers go on writing", lambda: total(system, ROWS) > before + 100)
    finally:
        postgres.stop(mode="fast")
        postgres.start()
    yield "rows were written while new sessions were refused"


def _refusal(system: System) -> str:
    """What a new session is told; nothing when it is welcome."""
    try:
        psycopg2.connect(system.dsn).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


@fault("postgres-restarted-immediate", "A restart without a checkpoint loses nothing that was committed.", recovery_seconds=15)
def restarted_immediate(system: System) -> Iterator[str]:
    """Postgres drops everything and recovers from its log."""
    _stopped(system, partial(system.servers.postgres.stop, mode="immediate"))
    yield "writes were tried again while Postgres recovered"


@fault(
    "postgres-killed",
    "A Postgres that was killed has all that was committed; the rest is sent again.",
    recovery_seconds=15,
)
def killed(system: System) -> Iterator[str]:
    """SIGKILL to the postmaster: no session is told anything."""
    _stopped(system, system.servers.postgres.kill)
    yield "writes were tried again after SIGKILL"


@fault(
    "postgres-session-killed",
    "When the kernel kills one session, and Postgres for that all others, the workers connect again.",
    recovery_seconds=15,
)
def session_killed(system: System) -> Iterator[str]:
    """As the out-of-memory killer does. Postgres then ends every session and recovers."""
    before = sessions(system)
    system.moment()
    os.kill(system.chance.choice(sorted(before)), SIGKILL)
    system.prove(
        "Postgres ended all sessions", lambda: "was terminated by signal 9" in system.servers.postgres.log_file.read_text()
    )
    system.prove("Postgres takes sessions again", lambda: not _refusal(system))
    yield "Postgres ended all sessions and recovered"
    assert sessions(system).isdisjoint(before), "every session is a new one"


@fault("postgres-sessions-terminated", "A session that is ended by an administrator is replaced.", recovery_seconds=15)
def sessions_terminated(system: System) -> Iterator[str]:
    """Ten times, each at another moment of a write or between two."""
    for _ in range(10):
        system.moment(0.3)
        before = system.wait("the workers have sessions", lambda: sessions(system))
        system.query(f"SELECT pg_terminate_backend(pid) {_SESSIONS}")
        system.prove("a new session took an ended one's place", lambda before=before: sessions(system) - before)
    yield "the workers' sessions were ended ten times, and others came"


@fault(
    "postgres-frozen",
    "A Postgres that says nothing is given up in time; what it carries out when it wakes counts once.",
    recovery_seconds=20,
    setup=Setup(settings=QUICK_TIMEOUTS),
)
def frozen(system: System) -> Iterator[str]:
    """SIGSTOP to all its processes: connections stand, new ones are taken by the kernel, statements wait in sockets."""
    before = total(system, RETRIES, sqlstate_class="none")
    system.moment()
    postmaster = psutil.Process(system.servers.postgres.child.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    _signal_all(processes, SIGSTOP)
    try:
        prove_retries(system, before, sqlstate_class="none")
        system.rest(3)
    finally:
        _signal_all(processes, SIGCONT)
    yield "a statement got no answer"


def _signal_all(processes: list[psutil.Process], number: Signals) -> None:
    for process in processes:
        process.send_signal(number)


@fault(
    "postgres-read-only",
    "A read-only Postgres (a standby, or set so) is waited for; no row becomes a dead letter.",
    recovery_seconds=15,
)
def read_only(system: System) -> Iterator[str]:
    """As after a switchover, while the old primary is a standby; each write fails with 25006."""
    before = total(system, RETRIES, sqlstate_class="25")
    system.moment()
    try:
        _reload_with(system, "SET default_transaction_read_only = on")
        prove_retries(system, before, sqlstate_class="25")
        system.rest(3)
    finally:
        _reload_with(system, "RESET default_transaction_read_only")
    yield "writes failed with 25006"


def _reload_with(system: System, change: str) -> None:
    system.query(f"ALTER SYSTEM {change}")
    system.query("SELECT pg_reload_conf()")


@fault(
    "postgres-password-changed", "A password is read again for each connection: a new one needs no restart.", recovery_seconds=15
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
    system.query(f"SELECT pg_terminate_backend(pid) {_SESSIONS}")
    _prove_all_refused(system, "password authentication failed")
    file.write_text(new)
    yield "password authentication failed"
    for name in system.workers:
        assert old not in system.log(name)
        assert new not in system.log(name)


@fault("postgres-connections-used-up", "Workers wait for a connection that others have taken.", recovery_seconds=15)
def connections_used_up(system: System) -> Iterator[str]:
    """All of max_connections, and then those that the workers had."""
    system.moment()
    workers = system.workers
    with ExitStack() as others:
        administrator = others.enter_context(closing(psycopg2.connect(system.dsn)))
        _take_all(system, others)
        system.freeze(*workers)  # so that none is quicker than we are
        try:
            with administrator.cursor() as cursor:
                cursor.execute(f"SELECT pg_terminate_backend(pid, 2000) {_SESSIONS}")
            _take_all(system, others)
        finally:
            system.thaw(*workers)
        _prove_all_refused(system, "too many clients already")
        system.rest(2)
    yield "too many clients already"


def _prove_all_refused(system: System, words: str) -> None:
    """Wait until each worker was refused a session, and has logged why."""
    system.prove("every worker is refused", lambda: all(words in system.log(name) for name in system.workers))


def _take_all(system: System, others: ExitStack) -> None:
    while True:
        try:
            others.enter_context(closing(psycopg2.connect(system.dsn)))
        except psycopg2.OperationalError as error:
            if "too many clients" not in str(error):
                raise
            return


@fault("postgres-disk-full", "Rows that find no room wait until there is some; none becomes a dead letter.", recovery_seconds=15)
def disk_full(system: System) -> Iterator[str]:
    """``user_logins`` lies on a disk of its own, which something else fills. Needs root, for that disk."""
    with _small_disk(system.directory / "disk") as directory:
        tablespace = f"small_{secrets.token_hex(4)}"
        system.query(f"CREATE TABLESPACE {tablespace} LOCATION '{directory}'")
        try:
            system.query(f"ALTER TABLE user_logins SET TABLESPACE {tablespace}")
            system.wait_flowing()
            before = total(system, RETRIES, sqlstate_class="53")
            system.moment()
            system.query(f"CREATE TABLE ballast (filling text) WITH (autovacuum_enabled = off) TABLESPACE {tablespace}")
            try:
                _fill(system)
                prove_retries(system, before, sqlstate_class="53")
                system.rest(3)
            finally:
                system.query("DROP TABLE ballast")
            yield "the disk had no room left (53100)"
        finally:
            system.query("ALTER TABLE user_logins SET TABLESPACE pg_default")
            system.query(f"DROP TABLESPACE {tablespace}")


def _fill(system: System) -> None:
    try:
        system.query("INSERT INTO ballast SELECT repeat('x', 2000) FROM generate_series(1, 1000000)")
    except psycopg2.errors.DiskFull:
        return  # what it took until then stays taken
    raise FaultDidNotTakePlaceError("the disk is larger than it should be")


@contextmanager
def _small_disk(directory: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        raise FaultDidNotTakePlaceError("only root may mount a file system that can be filled")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,uid=nobody,mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)
