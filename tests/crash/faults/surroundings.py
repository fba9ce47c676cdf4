"""What is around the processes: a group that never rests, a machine that is too busy, scrapers that do not read."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil

from crash.faults import fault
from crash.faults.worker_group import stop
from crash.system import Setup, System
from dev_servers.ports import HOST
from dev_servers.process import ChildProcess, Launch

REBALANCES = "stream_rebalances_total"
SCRAPERS = 20
CHANGES = 4
"""Workers that join and leave again."""

BUSY = 4
"""Processes that want a processor each, all the time."""


@fault(
    "workers-come-and-go",
    "A group that is rebalanced again and again goes on writing; nothing is skipped and nothing is there twice.",
    recovery_seconds=20,
)
def come_and_go(system: System) -> Iterator[str]:
    """A third worker joins and leaves, four times, the next change as soon as the last one is done."""
    lasting = system.workers
    before = {name: system.metric(name, REBALANCES) for name in lasting}
    for _ in range(CHANGES):
        guest = system.start_worker("worker-guest")
        system.processes.wait_ready(guest)
        system.moment()
        stop(system, guest)
        system.mended()
        system.wait_flowing()
    counted = {name: system.metric(name, REBALANCES) - before[name] for name in lasting}
    system.prove("each joining and leaving was a rebalance", lambda: min(counted.values()) >= CHANGES)
    yield f"{min(counted.values()):.0f} rebalances and more, and rows were written after each"


@fault(
    "machine-busy",
    "On a machine whose processors are taken by others all comes later; no session is lost and no process ends.",
    recovery_seconds=20,
    setup=Setup(messages_per_second=200, settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "20"}),
)
def machine_busy(system: System) -> Iterator[str]:
    """Other processes use all the time they can get."""
    rebalances = {name: system.metric(name, REBALANCES) for name in system.workers}
    with ExitStack() as others:
        pids = [_busy(others, system.directory / f"busy-{number}.out") for number in range(BUSY)]
        system.rest(10)
        used = system.prove("all of them get processor time", lambda: _used_seconds(pids))
    yield f"{BUSY} processes took {used:.1f} s of processor time in 10 s"
    assert rebalances == {name: system.metric(name, REBALANCES) for name in system.workers}, "a session ended"


def _used_seconds(pids: list[int]) -> float:
    """Of all together; 0 as long as one has hardly any."""
    used = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]
    return sum(used) if min(used) > 0.5 else 0.0


def _busy(others: ExitStack, log_file: Path) -> int:
    child = ChildProcess("busy", Launch([sys.executable, "-c", "while True: pass"], directory=log_file.parent), log_file)
    others.callback(child.kill)
    return child.pid


@fault(
    "metrics-not-read",
    "Whoever asks for metrics and does not read them holds up nobody: others get theirs, records flow.",
    recovery_seconds=10,
)
def metrics_not_read(system: System) -> Iterator[str]:
    """Half of a request to each process, twenty times, and then nothing; and a whole one whose answer is left lying."""
    system.moment()
    with ExitStack() as scrapers:
        for name in system.processes.running:
            for request in (b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
                for _ in range(SCRAPERS // 2):
                    scraper = scrapers.enter_context(closing(socket.create_connection((HOST, system.processes.ports[name]))))
                    scraper.sendall(request)
        system.wait_flowing(1_000)
        system.prove("all are still asked for metrics", lambda: all(map(system.processes.scrape, system.processes.running)))
    yield f"{SCRAPERS} scrapers stalled at each process while 1,000 messages came through"
