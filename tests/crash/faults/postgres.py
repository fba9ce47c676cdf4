"""Postgres itself: restarted, killed, away, frozen, or read-only."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals

import psutil
import psycopg2

from crash.faults import fault
from crash.system import Setup, System
from dev_servers.postgres import STOP_MODES

RETRIES = "stream_database_retries_total"
ROWS = "stream_rows_written_total"
REBALANCES = "stream_rebalances_total"

PARTITIONS = 4
QUICK_TIMEOUTS = {"POSTGRES_STATEMENT_TIMEOUT_SECONDS": "3", "POSTGRES_CONNECT_TIMEOUT_SECONDS": "3"}
"""Else the worker waits for half a minute before it tries again."""

SESSIONS = "FROM pg_stat_activity WHERE application_name = 'login-stream worker' AND datname = current_database()"


def total(system: System, metric: str, **labels: str) -> float:
    """A metric's sum over the workers that run."""
    return sum(system.metric(name, metric, **labels) for name in system.workers)


def over_partitions(system: System, gauge: str) -> float:
    """A gauge's sum over all partitions. A worker that has none at the moment shows none."""
    found = 0.0
    for name in system.workers:
        with suppress(LookupError):
            found += system.metric(name, gauge)
    return found


def prove_retries(system: System, before: float, **labels: str) -> None:
    """Wait until a statement was tried again that was not before."""
    system.prove(f"a worker tries again {labels or ''}", lambda: total(system, RETRIES, **labels) > before)


def sessions(system: System) -> set[int]:
    """The process ids of the workers' sessions in Postgres."""
    return {pid for (pid,) in system.query(f"SELECT pid {SESSIONS}")}


def refusal(system: System) -> str:
    """What a new session is told; nothing when it is welcome."""
    try:
        psycopg2.connect(system.dsn).close()
    except psycopg2.OperationalError as error:
        return str(error)
    return ""


def _stopped(system: System, stop: Callable[[], object]) -> None:
    """Away until a worker has noticed, and back."""
    before = total(system, RETRIES)
    system.moment()
    stop()
    try:
        prove_retries(system, before)
    finally:
        system.servers.postgres.start()


@fault("postgres-restarted", "Workers wait for Postgres and go on by themselves.", recovery_seconds=15, soak=True)
def restarted(system: System) -> Iterator[str]:
    """As pg_ctl restart does it: sessions are ended in order (57P01), new ones refused (57P03)."""
    _stopped(system, partial(system.servers.postgres.stop, mode="fast"))
    yield "writes were tried again while Postgres restarted"


@fault(
    "postgres-restarted-smart",
    "A shutdown that waits for its sessions does not stop the workers before it ends.",
    recovery_seconds=15,
    soak=True,
)
def restarted_smart(system: System) -> Iterator[str]:
    """New sessions are refused, and those of the workers stay: it would wait for ever."""
    postgres = system.servers.postgres
    system.moment()
    postgres.child.send_signal(STOP_MODES["smart"])
    try:
        system.prove("Postgres refuses new sessions", lambda: "shutting down" in refusal(system))
        before = total(system, ROWS)
        system.prove("the workers go on writing", lambda: total(system, ROWS) > before + 100)
    finally:
        postgres.stop(mode="fast")
        postgres.start()
    yield "rows were written while new sessions were refused"


@fault(
    "postgres-restarted-immediate",
    "A restart without a checkpoint loses nothing that was committed.",
    recovery_seconds=15,
    soak=True,
)
def restarted_immediate(system: System) -> Iterator[str]:
    """Postgres drops everything and recovers from its log."""
    _stopped(system, partial(system.servers.postgres.stop, mode="immediate"))
    yield "writes were tried again while Postgres recovered"


@fault(
    "postgres-killed",
    "A Postgres that was killed has all that was committed; the rest is sent again.",
    recovery_seconds=15,
    soak=True,
)
def killed(system: System) -> Iterator[str]:
    """SIGKILL to the postmaster: no session is told anything."""
    _stopped(system, system.servers.postgres.kill)
    yield "writes were tried again after SIGKILL"


@fault(
    "postgres-session-killed",
    "When the kernel kills one session, and Postgres for that all others, the workers connect again.",
    recovery_seconds=15,
    soak=True,
)
def session_killed(system: System) -> Iterator[str]:
    """As the out-of-memory killer does. Postgres then ends every session and recovers."""
    system.moment()
    before = system.wait("the workers have sessions", lambda: sessions(system))
    os.kill(system.chance.choice(sorted(before)), SIGKILL)
    system.mended()
    system.prove("Postgres ended all sessions and has new ones", lambda: _has_others(system, before))
    yield "Postgres ended all sessions and recovered"


def _has_others(system: System, before: set[int]) -> bool:
    """Whether the workers have sessions again, all of them new."""
    try:
        now = sessions(system)
    except psycopg2.OperationalError:
        return False  # it recovers, or has just ended our own session too
    return bool(now) and now.isdisjoint(before)


@fault(
    "postgres-away",
    "While Postgres is away workers hold no more than fits, stay in their group and alive; afterwards they go on by themselves.",
    recovery_seconds=25,
    setup=Setup(settings={"WINDOW_ROWS": "500"}),
    soak=True,
)
def away(system: System) -> Iterator[str]:
    """Everything that may wait is full long before the end."""
    rebalances = total(system, REBALANCES)
    system.moment()
    system.servers.postgres.stop()
    try:
        system.rest(system.absence_seconds)
        system.prove("fetching pauses everywhere", lambda: over_partitions(system, "stream_partition_fetch_paused") == PARTITIONS)
        for name in system.workers:
            assert not system.processes.is_ready(name), f"{name} says that it is ready"
            status, says = system.processes.livez(name)
            assert status == HTTPStatus.OK, f"{name} asks for a restart, which would not help: {says}"
            assert system.metric(name, "stream_buffer_bytes") <= system.metric(name, "stream_buffer_bytes_max")
    finally:
        system.servers.postgres.start()
    yield f"away for {system.absence_seconds:g} s, until fetching paused everywhere"
    assert total(system, REBALANCES) == rebalances, "the workers stayed in their group"
    for name in system.workers:
        assert system.log(name).count("retrying") <= 3 * PARTITIONS, "an outage is a few lines"


@fault(
    "postgres-frozen",
    "A Postgres that says nothing is given up in time; what it carries out when it wakes counts once.",
    recovery_seconds=20,
    setup=Setup(settings=QUICK_TIMEOUTS),
    soak=True,
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
    setup=Setup(bad_share=0.2),
    soak=True,
)
def read_only(system: System) -> Iterator[str]:
    """As after a switchover, while the old primary is a standby; each write fails with 25006, dead letters in it or not."""
    before = total(system, RETRIES, sqlstate_class="25")
    system.moment()
    try:
        reload_with(system, "SET default_transaction_read_only = on")
        prove_retries(system, before, sqlstate_class="25")
        system.rest(3)
    finally:
        reload_with(system, "RESET default_transaction_read_only")
    yield "writes failed with 25006"


def reload_with(system: System, change: str) -> None:
    """Change a setting of the whole server."""
    system.query(f"ALTER SYSTEM {change}")
    system.query("SELECT pg_reload_conf()")
