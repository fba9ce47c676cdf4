"""Each fault: nothing is lost, nothing double, and it recovers in time.

CI runs the fast ones. ``make crash`` runs all; ``make crash FAULT=NAME SEED=NUMBER`` plays one again.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from crash.faults import Fault, all_faults
from crash.run import run_fault
from crash.servers import Servers
from crash.table import PROPERTY

SEED = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1_000_000))
FAULTS = all_faults()


def chosen() -> list[Fault]:
    """Those that the environment asks for."""
    if name := os.environ.get("CRASH_FAULT"):
        if name not in FAULTS:
            raise pytest.UsageError(f"there is no fault {name}; `make crash LIST=1` names them")
        return [FAULTS[name]]
    return [fault for fault in FAULTS.values() if fault.fast or os.environ.get("CRASH_WHOLE")]


@pytest.mark.parametrize("fault", chosen(), ids=lambda fault: fault.name)
def test_nothing_is_lost_and_nothing_double(
    fault: Fault, crash_servers: Servers, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    again = f"make crash FAULT={fault.name} SEED={SEED}"
    print(f"again: {again}; logs: {tmp_path}")  # noqa: T201 - shown with a failure
    outcome = run_fault(fault, crash_servers, tmp_path, SEED)
    record_property(PROPERTY, f"{SEED} {outcome.line}")
    assert not outcome.failures, "\n".join([*outcome.failures, f"again: {again}"])
