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

WORKER_MEBIBYTES_MAX = 320
BRIDGE_MEBIBYTES_MAX = 240


@dataclass(slots=True)
class Outcome:
    """One fault's line in the table."""

    name: str
    evidence: str
    verdict: Verdict
    seconds: float
    worker_mebibytes: float
    bridge_mebibytes: float
    failures: list[str] = field(default_factory=list)
    """Why it did not pass."""


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
        ended_at = time.time()
        system.rest(fault.after_seconds)
        drained = system.settle(fault.recovery_seconds + DRAIN_SECONDS)
        for _ in injection:
            raise RuntimeError(f"{fault.name} yields more than once")
        exit_codes = system.stop_processes()
        verdict = system.judge(ended_at)
        outcome = Outcome(
            fault.name,
            evidence,
            verdict,
            time.monotonic() - began,
            system.peak_mebibytes("worker"),
            system.peak_mebibytes("bridge"),
        )
    if not drained:
        outcome.failures.append("it was not drained in time")
    if verdict.problems != system.expected:
        outcome.failures.append(f"{verdict} (expected: {system.expected or 'nothing'})")
    if (verdict.recovery_seconds or 0) > fault.recovery_seconds:
        outcome.failures.append(f"recovered after {verdict.recovery_seconds:.1f} s; the bound is {fault.recovery_seconds:g} s")
    outcome.failures += [f"{name} ended with {code} after SIGTERM" for name, code in exit_codes.items() if code != 0]
    for kind, size, bound in (
        ("worker", outcome.worker_mebibytes, WORKER_MEBIBYTES_MAX),
        ("bridge", outcome.bridge_mebibytes, BRIDGE_MEBIBYTES_MAX),
    ):
        if size > bound:
            outcome.failures.append(f"a {kind} took {size:.0f} MiB; the bound is {bound}")
    return outcome
