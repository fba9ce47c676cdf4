"""Which threads of a process would take a signal, as the kernel sees it."""

from pathlib import Path
from signal import Signals


def is_pending(pid: int, number: Signals) -> bool:
    """Whether the signal was sent and nobody has taken it yet: until then a second one would be none."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    masks = [line.split()[1] for line in lines if line.startswith("ShdPnd:")]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def threads_that_take(pid: int, number: Signals) -> int:
    """How many threads do not block the signal; one that waits for it with sigwait does not block it either."""
    statuses = [status.read_text() for status in Path("/proc", str(pid), "task").glob("*/status")]
    masks = [line.split()[1] for status in statuses for line in status.splitlines() if line.startswith("SigBlk:")]
    assert masks
    return sum(not int(mask, 16) >> (number - 1) & 1 for mask in masks)
