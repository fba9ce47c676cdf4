"""A worker's event loop stands still while its other threads live: Kafka hears from it, and /livez and /metrics are answered."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from signal import SIGVTALRM

from crash.faults import fault
from crash.faults.worker import partitions_of, skipped
from crash.faults.worker_group import epochs
from crash.system import Setup, System

BLOCKED_SECONDS = 15.0
"""More than two sessions, less than what asks for a restart."""
STUCK_SECONDS = 60.0
"""After so long /livez asks for a restart: LOOP_STUCK_SECONDS, written down here again."""
FOR_EVER_SECONDS = 3_600.0

_SITE = """
import signal
import time

signal.signal(signal.SIGVTALRM, lambda *_: time.sleep({seconds}))
"""
"""Python runs this before the worker's own code. The handler runs in the event loop's thread, and lets the other threads run.
SIGUSR1 and SIGUSR2 are Faust's own."""


def _to_be_blocked(system: System, seconds: float) -> str:
    """One of the workers, started anew as one that SIGVTALRM blocks for so long; its name."""
    name = system.worker
    directory = system.directory / "site"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITE.format(seconds=seconds))
    assert system.processes.stop(name) == {name: 0}
    system.start_worker(name, PYTHONPATH=str(directory))
    system.processes.wait_ready(name)
    system.wait(f"{name} has partitions", lambda: _has_partitions(system, name))
    system.wait_flowing()
    return name


def _has_partitions(system: System, name: str) -> bool:
    with suppress(LookupError):  # it shows none
        return bool(partitions_of(system, name))
    return False


def _silent_seconds(system: System, name: str) -> float:
    """How long its event loop has not moved, by what /livez says."""
    _, says = system.processes.livez(name)
    return float(json.loads(says)["event_loop_silent_seconds"])


@fault(
    "worker-event-loop-blocked",
    "A worker whose event loop stands still for less than a minute keeps its partitions, however short its session; records wait.",
    recovery_seconds=10,
)
def blocked(system: System) -> Iterator[str]:
    """For longer than two sessions."""
    name = _to_be_blocked(system, BLOCKED_SECONDS)
    before = epochs(system)
    mine = partitions_of(system, name)
    system.moment()
    os.kill(system.pid(name), SIGVTALRM)
    system.prove("its event loop stands still", lambda: _silent_seconds(system, name) > 2 * 6)
    status, says = system.processes.livez(name)
    assert status == HTTPStatus.OK, f"it asks for a restart: {says}"
    stood = {partition: system.positions()[partition] for partition in mine}
    system.prove("records wait for it", lambda: all(system.log_ends()[p] > position for p, position in stood.items()), 3)
    system.prove("it goes on", lambda: _silent_seconds(system, name) < 2)
    yield f"for {BLOCKED_SECONDS:g} s nothing of partitions {mine} was written; its session is 6 s"
    assert epochs(system) == before, "somebody has claimed its partitions"
    assert skipped(system) == 0


@fault(
    "worker-event-loop-stuck",
    "A worker whose event loop has stood still for a minute asks for a restart at /livez; restarted it goes on, nothing is lost.",
    recovery_seconds=20,
    setup=Setup(messages_per_second=100),
)
def stuck(system: System) -> Iterator[str]:
    """For ever: its heartbeats go on, so nobody else takes its partitions."""
    name = _to_be_blocked(system, FOR_EVER_SECONDS)
    before = epochs(system)
    system.moment()
    os.kill(system.pid(name), SIGVTALRM)

    def asks() -> bool:
        status, _ = system.processes.livez(name)
        return status == HTTPStatus.SERVICE_UNAVAILABLE

    system.prove("it asks for a restart", asks, STUCK_SECONDS + 10)
    silent = _silent_seconds(system, name)
    assert silent >= STUCK_SECONDS
    assert epochs(system) == before, "somebody has claimed its partitions"
    system.kill(name)  # as a supervisor does when SIGTERM has no effect
    system.start_worker(name)
    system.mended()
    system.processes.wait_ready(name)
    yield f"/livez asked for a restart after {silent:.0f} s"
