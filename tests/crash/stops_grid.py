"""SIGTERM ends each process within its bound and with 0, whichever server is away, silent or slow.

Not in CI, so not named as its tests are: ``make stops`` plays it, and says how long each stop took.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

import pytest

from crash.proxy import Proxy
from crash.servers import Servers
from crash.system import Setup, System

FLUSH_SECONDS = 2.0
BRIDGE_SHUTDOWN_SECONDS = 3.5
"""The least that a bridge takes which waits for SQS for a second."""
BEYOND_SECONDS = 5.0
MESSAGES = 300
WINDOW_SECONDS = 60.0
"""A worker holds what it has until it is told to stop."""
SLOW_SECONDS = 1.5
"""Each way."""
SERVED_SECONDS = 20.0
BROKEN_SECONDS = 2.0
"""Before the stop: requests are under way by then."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is told to stop, while what is how far away."""

    process: str
    server: str
    state: str
    """``gone``: refuses connections. ``silent``: takes them and never answers. ``slow``: answers late."""
    moment: str
    """``start``: it was so before the process was ever ready. ``idle``. ``loaded``: with records in hand."""

    def __str__(self) -> str:
        return f"{self.process}-{self.server}-{self.state}-{self.moment}"

    @property
    def bound_seconds(self) -> float:
        """From the signal to the end."""
        return {"worker": FLUSH_SECONDS, "bridge": BRIDGE_SHUTDOWN_SECONDS, "monitor": 0.0}[self.process] + BEYOND_SECONDS


SERVERS = {"worker": ("kafka", "postgres"), "bridge": ("kafka", "sqs"), "monitor": ("kafka", "postgres")}
STATES = ("gone", "silent", "slow")
MOMENTS = {"worker": ("start", "idle", "loaded"), "bridge": ("start", "idle", "loaded"), "monitor": ("start", "idle")}
UNFINISHED = {
    "worker-postgres-gone-loaded": "flush_given_up",
    "worker-postgres-silent-loaded": "flush_given_up",
    "worker-kafka-silent-loaded": "group_not_left",
}
"""What such a stop leaves undone, by the line that says so."""
CELLS = [
    Cell(process, server, state, moment)
    for process, servers in SERVERS.items()
    for server, state, moment in product(servers, STATES, MOMENTS[process])
]


@pytest.fixture
def system(crash_servers: Servers, tmp_path: Path) -> Iterator[System]:
    """Nothing runs yet. Every process reaches every server through what can break the way."""
    settings = {
        "FLUSH_SECONDS": str(FLUSH_SECONDS),
        "BRIDGE_SHUTDOWN_SECONDS": str(BRIDGE_SHUTDOWN_SECONDS),
        "WINDOW_SECONDS": str(WINDOW_SECONDS),
        "WINDOW_ROWS": "100000",
    }
    setup = Setup(workers=1, bridges=1, proxied=("kafka", "postgres"), settings=settings)
    with System(crash_servers, tmp_path, setup, Random(0)) as system:  # noqa: S311 - to be repeatable is the point
        yield system
        crash_servers.heal()


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_stop_ends_within_its_bound(cell: Cell, system: System) -> None:
    with Proxy(system.servers.elasticmq.port) as sqs:
        proxy = {"kafka": system.servers.kafka_proxy, "postgres": system.servers.postgres_proxy, "sqs": sqs}[cell.server]
        system.processes.environment["AWS_ENDPOINT_URL_SQS"] = f"http://127.0.0.1:{sqs.port}"
        _feed(cell, system)
        if cell.moment == "start":
            _break(proxy, cell.state)
            _start(cell, system)
            system.wait("it serves", lambda: _serves(system, cell.process), SERVED_SECONDS)
            system.rest(BROKEN_SECONDS)
        else:
            _start(cell, system)
            system.processes.wait_ready(cell.process)
            if cell.process == "worker" and cell.moment == "loaded":
                system.wait("records are in hand", lambda: system.buffered("worker") >= MESSAGES)
            _break(proxy, cell.state)
            if cell.process == "bridge" and cell.moment == "loaded":
                system.workload.burst(MESSAGES)
            system.rest(BROKEN_SECONDS)
        began = time.monotonic()
        code = system.processes.stop(cell.process)[cell.process]
        seconds = time.monotonic() - began
        print(f"{cell}: {seconds:.1f} s, bound {cell.bound_seconds:g} s, code {code}")  # noqa: T201 - with -s, the grid's table
        proxy.heal()
    assert code == 0
    assert seconds < cell.bound_seconds
    log = system.log(cell.process)
    assert f"{cell.process}_stopped" in log or cell.moment == "start", "it has not stopped in order"
    assert (UNFINISHED.get(str(cell)) or "") in log, "it does not say what was left"


def _feed(cell: Cell, system: System) -> None:
    """Have records in the topic, for a worker."""
    feeder = system.start_bridge(
        "feeder",
        KAFKA_BOOTSTRAP_SERVERS=system.servers.kafka.bootstrap_servers,
        AWS_ENDPOINT_URL_SQS=system.servers.elasticmq.endpoint_url,
    )
    system.processes.wait_ready(feeder)
    if cell.process == "worker" and cell.moment == "loaded":
        system.workload.burst(MESSAGES)
        system.wait("it is forwarded", lambda: system.metric(feeder, "bridge_messages_forwarded_total") >= MESSAGES)
    system.processes.stop(feeder)


def _start(cell: Cell, system: System) -> None:
    if cell.process == "monitor":
        system.processes.start_monitor("monitor")
    elif cell.process == "bridge":
        system.start_bridge("bridge")
    else:
        system.start_worker("worker")


def _break(proxy: Proxy, state: str) -> None:
    if state == "gone":
        proxy.go_away()
    elif state == "silent":
        proxy.fall_silent()
    else:
        proxy.slow_down(delay_seconds=SLOW_SECONDS)


def _serves(system: System, name: str) -> bool:
    try:
        return bool(system.processes.livez(name))
    except OSError:
        return False
