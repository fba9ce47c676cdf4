"""Runs one of :mod:`benchmarks.limits` and measures it as a peer is measured."""

import sys
from collections.abc import Sequence

from benchmarks.limits import Limit, parsed
from benchmarks.machine import PROJECT
from benchmarks.meter import Meter
from benchmarks.session import NoFiguresError
from benchmarks.workbench import Workbench
from dev_servers.process import Launch

LIMIT_SECONDS_MAX = 300.0


def run_limit(bench: Workbench, arguments: Sequence[str], records: int) -> tuple[Limit, Meter]:
    """What it printed, and a meter that watched it as ``peer``. Raises :class:`NoFiguresError` if it saw not just these records."""
    child = bench.launch("limit", Launch([sys.executable, "-m", "benchmarks.limits", *arguments], directory=PROJECT))
    try:
        with Meter({"peer": child.pid, **bench.pids}) as meter:
            code = child.wait(LIMIT_SECONDS_MAX)
    finally:
        child.stop()
    output = child.log_file.read_text()
    if code != 0:
        raise NoFiguresError(f"failed with exit code {code}", output)
    limit = parsed(output)
    if limit.records != records:
        raise NoFiguresError(f"{limit.records:,} records instead of {records:,}")
    return limit, meter
