"""Postgres was killed and recovers for long: it takes connections and refuses them (57P03)."""

from collections.abc import Iterator
from contextlib import suppress
from signal import SIGCONT, SIGSTOP
from threading import Thread

import psutil

from crash.faults import fault
from crash.faults.postgres import QUICK_TIMEOUTS, RETRIES, prove_retries, refusal, total
from crash.system import Setup, System

RECOVERY_SECONDS = 8.0
"""As with much in its log."""


def _recovering(system: System) -> psutil.Process | None:
    """The process of Postgres that replays its log, while there is one."""
    with suppress(psutil.Error, RuntimeError):
        for each in psutil.Process(system.servers.postgres.child.pid).children():
            with suppress(psutil.Error):
                if " ".join(each.cmdline()).startswith("postgres: startup"):
                    return each
    return None


@fault(
    "postgres-recovers-for-long",
    "A Postgres that was killed and refuses connections while it replays its log is waited for, by the partitions that are held.",
    recovery_seconds=20,
    setup=Setup(settings=QUICK_TIMEOUTS),
)
def recovers_for_long(system: System) -> Iterator[str]:
    """What replays the log is stopped by SIGSTOP: that takes as long as wanted, and no gigabytes."""
    system.moment()
    postgres = system.servers.postgres
    postgres.kill()
    before = total(system, RETRIES)
    starting = Thread(target=postgres.start, name="start Postgres")
    starting.start()
    recovering = None
    try:
        recovering = system.prove("Postgres replays its log", lambda: _stopped(system))
        system.prove("it refuses connections", lambda: "57P03" in refusal(system) or "starting up" in refusal(system)
                     or "not yet accepting connections" in refusal(system))  # fmt: skip
        prove_retries(system, before)
        system.rest(RECOVERY_SECONDS)
    finally:
        if recovering is not None:
            recovering.send_signal(SIGCONT)
        starting.join()
    yield f"SIGKILL, and {RECOVERY_SECONDS:g} s of recovery"
    assert "partition_stopped" not in "".join(system.log(name) for name in system.workers)


def _stopped(system: System) -> psutil.Process | None:
    found = _recovering(system)
    if found is not None:
        with suppress(psutil.NoSuchProcess):
            found.send_signal(SIGSTOP)
            return found
    return None
