"""Runs one fault and says what came of it."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash.checker import Verdict
from crash.faults import Fault
from crash.servers import Servers
from crash.system import System

DRAIN_SECONDS = 60.0
"""On top of the recovery's bound: for what was sent after the fault, and so that a late recovery is measured."""

MEBIBYTES_MAX = {"worker": 238, "bridge": 160}
"""What a process may take, by kind: 250 MB a worker, the product's target; a bridge half as much again as was seen."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One fault's line in the table."""

    fault: Fault
    evidence: str
    proved: int
    """Signs that it took place."""
    drained: bool
    expected: dict[str, int]
    """What the verdict must show though it is a problem."""
    exit_codes: dict[str, int]
    verdict: Verdict
    seconds: float
    mebibytes: dict[str, float]
    """The most that any process of a kind has taken."""
    failures: list[str] = field(init=False)
    """Why it did not pass."""

    def __post_init__(self) -> None:
        bound = self.fault.recovery_seconds
        self.failures = [f"{name} ended with {code} after SIGTERM" for name, code in self.exit_codes.items() if code != 0]
        self.failures += memory_failures(self.mebibytes)
        if not self.proved:
            self.failures.append("nothing has proved that the fault took place")
        if not self.drained:
            self.failures.append("it was not drained in time")
        if self.verdict.problems != self.expected:
            self.failures.append(f"{self.verdict} (expected: {self.expected or 'nothing'})")
        if self.recovery_seconds > bound:
            self.failures.append(f"recovered after {self.recovery_seconds:.1f} s; the bound is {bound:g} s")

    @property
    def line(self) -> str:
        """All of it in one line."""
        verdict = self.verdict
        sizes = ", ".join(f"{kind} {size:.0f} MiB" for kind, size in self.mebibytes.items())
        return (
            f"{self.fault.name}: {'; '.join(self.failures) or 'ok'}: {verdict.sent:,} sent, {verdict.rows:,} rows,"
            f" {verdict.dead_letters:,} dead letters, {verdict.lost} lost, {verdict.doubled} doubled,"
            f" {verdict.redelivered} forwarded again; recovered after {self.recovery_seconds:.1f} s, bound"
            f" {self.fault.recovery_seconds:g}; {sizes}; {self.seconds:.0f} s in all; {self.evidence}"
        )

    @property
    def recovery_seconds(self) -> float:
        """From the end of the fault until all that was sent before was in Postgres."""
        return max(self.verdict.recoveries_seconds)


def memory_failures(mebibytes: dict[str, float]) -> list[str]:
    """Which kinds of process took more than they may."""
    return [f"nobody has seen how much memory a {kind} took" for kind, size in mebibytes.items() if not size] + [
        f"a {kind} took {size:.0f} MiB; the bound is {MEBIBYTES_MAX[kind]}"
        for kind, size in mebibytes.items()
        if size > MEBIBYTES_MAX[kind]
    ]


def run_fault(fault: Fault, servers: Servers, directory: Path, seed: int) -> Outcome:
    """Everything of this fault: start, load, break, mend, drain, stop, check. Raises what the fault itself raises."""
    if fault.servers is None:
        return _run(fault, servers, directory, seed)
    with fault.servers(directory / "servers") as own:
        return _run(fault, own, directory, seed)


def _run(fault: Fault, servers: Servers, directory: Path, seed: int) -> Outcome:
    began = time.monotonic()
    with System(servers, directory, fault.setup, Random(f"{seed} {fault.name}")) as system:  # noqa: S311 - to be repeatable is the point
        system.start()
        injection = fault.inject(system)
        evidence = next(injection)
        ended_at = system.mended_at or time.time()
        system.rest(fault.after_seconds)
        drained = system.settle(fault.recovery_seconds + DRAIN_SECONDS)
        for _ in injection:
            raise RuntimeError(f"{fault.name} yields more than once")
        exit_codes = system.stop_processes()
        return Outcome(
            fault=fault,
            evidence=evidence,
            proved=len(system.proved),
            drained=drained,
            expected=system.expected,
            exit_codes=exit_codes,
            verdict=system.judge([ended_at]),
            seconds=time.monotonic() - began,
            mebibytes={kind: system.peak_mebibytes(kind) for kind in MEBIBYTES_MAX},
        )
