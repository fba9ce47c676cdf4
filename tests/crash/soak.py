"""Faults by chance under load, one after the other, for as long as asked; then everything is counted.

It is one pipeline all the time: a standard and a FIFO queue into one topic, two workers. Faults are drawn in rounds; each round has
all that are marked ``soak``, in another order. After a fault the load runs on until what was sent before its end has come through,
then what it ended is started again, and the next one begins. Every ten minutes the load pauses until all is at rest, and the
checker looks at everything so far. What it keeps grows on disk only: the ledger, the logs, the servers' data.
"""

import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import psycopg2

from crash.checker import Verdict
from crash.faults import Fault, all_faults
from crash.run import MEBIBYTES_MAX, memory_failures
from crash.servers import Servers
from crash.system import FaultDidNotTakePlaceError, Setup, System

SETUP = Setup(
    also_fifo=True,
    messages_per_second=150.0,
    visibility_seconds=12,
    proxied=("kafka", "postgres", "sqs"),
    settings={
        "WINDOW_SECONDS": "1",
        "WINDOW_ROWS": "500",
        "BRIDGE_IN_FLIGHT_MESSAGES_MAX": "500",
        "POSTGRES_STATEMENT_TIMEOUT_SECONDS": "3",
        "POSTGRES_CONNECT_TIMEOUT_SECONDS": "3",
    },
)
ABSENCE_SECONDS = 300.0
ABSENCE_SHARE = 0.1
"""Of the time asked for: a short soak has shorter absences."""
CHECKPOINT_SECONDS = 600.0
REST_SECONDS = 300.0
"""For a backlog to be worked off."""
PAUSE_SECONDS = 5.0
"""At most, between two faults."""
POLL_SECONDS = 0.5


@dataclass(slots=True)
class Report:
    """What came of a soak."""

    seed: int
    minutes: float = 0.0
    injected: list[tuple[str, float]] = field(default_factory=list)
    """Faults that took place, and when each ended, in seconds since the epoch."""
    unproved: list[str] = field(default_factory=list)
    """Faults that did not take place."""
    checks: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    """By kind of queue, and past the queues."""
    verdict: Verdict | None = None
    """The last check's."""
    mebibytes: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def fit_faults() -> list[Fault]:
    """Those marked for the soak. Raises when one of them asks for what the soak does not have."""
    fit = [fault for fault in all_faults().values() if fault.soak]
    for fault in fit:
        setup = fault.setup
        has_all = set(setup.proxied) <= set(SETUP.proxied) and setup.settings.items() <= SETUP.settings.items()
        has_all &= setup.visibility_seconds <= SETUP.visibility_seconds
        if fault.servers is not None or setup.fifo or setup.receives_max is not None or not has_all:
            raise ValueError(f"{fault.name} is marked for the soak and asks for what that does not have")
    return fit


def draws(faults: Sequence[Fault], chance: Random) -> Iterator[Fault]:
    """Faults without end: each round has all of them, in another order."""
    while True:
        yield from chance.sample(faults, len(faults))


class Soak:
    """One soak on one system; :meth:`run` until the time is over or something is wrong."""

    def __init__(self, system: System, report: Report, faults: Iterator[Fault]) -> None:
        self.system = system
        self.report = report
        self.now = "start"
        """What it does, for who watches."""
        self._faults = faults
        self._rested_at, self._sent_at_rest = 0.0, 0

    def run(self, seconds: float) -> None:
        """Start everything, then break it again and again. Raises what should not be."""
        began = checked = time.monotonic()
        try:
            self.system.start()
            while time.monotonic() - began < seconds and not self.report.failures:
                self._inject(next(self._faults))
                if time.monotonic() - checked >= CHECKPOINT_SECONDS:
                    self._check_so_far()
                    checked = time.monotonic()
        finally:
            self.report.minutes = (time.monotonic() - began) / 60

    def end(self) -> None:
        """Come to rest, stop everything, check everything."""
        self.now = "last check"
        if not self.system.settle(REST_SECONDS):
            self.report.failures.append("it was not drained at the end")
        codes = self.system.stop_processes()
        self.report.failures += [f"{name} ended with {code} after SIGTERM" for name, code in codes.items() if code != 0]
        self._judge()
        self.report.mebibytes = {kind: self.system.peak_mebibytes(kind) for kind in MEBIBYTES_MAX}
        self.report.failures += memory_failures(self.report.mebibytes)
        proved = {name for name, _ in self.report.injected}
        never = sorted(set(self.report.unproved) - proved)
        self.report.failures += [f"{name} did not take place, not once" for name in never]

    def _inject(self, fault: Fault) -> None:
        self.now = fault.name
        self.system.begin_anew()
        injection = cast("Generator[str]", fault.inject(self.system))
        try:
            next(injection)
        except FaultDidNotTakePlaceError:
            self.report.unproved.append(fault.name)
        else:
            self.report.injected.append((fault.name, self.system.mended_at or time.time()))
        injection.close()
        sent = self.system.sent
        self._wait_recovered(fault.name, sent, time.time())
        self.system.restore()
        self.system.rest(self.system.chance.uniform(0, PAUSE_SECONDS))

    def _wait_recovered(self, name: str, sent: int, until: float) -> None:
        """Until so many messages, all sent before this second, have come to their end."""
        deadline = time.monotonic() + REST_SECONDS
        while self._finished(until) < sent - self._sent_at_rest:
            if time.monotonic() > deadline:
                raise AssertionError(f"not all has come through {REST_SECONDS:g} s after {name}")
            self.system.rest(POLL_SECONDS)

    def _finished(self, until: float) -> int:
        try:
            return self.system.finished(self._rested_at, until)
        except psycopg2.OperationalError:
            return 0  # Postgres is still starting

    def _check_so_far(self) -> None:
        self.now = "check of everything so far"
        system = self.system
        for workload in system.workloads:
            workload.pause()
        if not system.drained_within(REST_SECONDS):
            self.report.failures.append("it was not drained for a check")
            return
        system.wait("positions are committed to Kafka", lambda: system.commits() == system.positions())
        self._rested_at, self._sent_at_rest = time.time(), system.sent
        self._judge()
        system.restore_load()

    def _judge(self) -> None:
        report = self.report
        report.verdict = self.system.judge([ended_at for _, ended_at in report.injected])
        report.checks += 1
        report.sent = {
            "FIFO" if queue.fifo else "standard": load.sent
            for queue, load in zip(self.system.queues, self.system.workloads, strict=True)
        }
        report.sent["by other producers"] = self.system.sent - sum(report.sent.values())
        if report.verdict.problems:
            report.failures.append(str(report.verdict))


def soak(minutes: float, seed: int, directory: Path, watch: Callable[[Soak], None]) -> Report:
    """Soak for so long in this directory. ``watch`` is called once it begins."""
    report = Report(seed)
    chance = Random(seed)  # noqa: S311 - to be repeatable is the point
    faults = draws(fit_faults(), Random(chance.getrandbits(64)))  # noqa: S311 - to be repeatable is the point
    with Servers(directory / "servers") as servers, System(servers, directory / "run", SETUP, chance) as system:
        system.absence_seconds = min(ABSENCE_SECONDS, minutes * 60 * ABSENCE_SHARE)
        running = Soak(system, report, faults)
        watch(running)
        for step in (partial(running.run, minutes * 60), running.end):
            try:
                step()
            except Exception:  # noqa: BLE001 - told in the report, and the other step may tell more
                report.failures.append(f"while {running.now}:\n{traceback.format_exc()}")
        system.keep = bool(report.failures)
    return report
