"""Workers are killed, paused, stopped, starved."""

from collections.abc import Iterator

from crash.faults import fault
from crash.system import Setup, System


@fault(
    "worker-killed-mid-batch",
    "What a killed worker held is read again by the others, from the position that its last write left.",
    recovery_seconds=15,
    setup=Setup(settings={"WINDOW_SECONDS": "1"}),
    fast=True,
)
def killed_mid_batch(system: System) -> Iterator[str]:
    """Killed while records wait in an open window."""
    victim = system.worker
    system.moment()
    held = system.prove(f"{victim} holds records", lambda: system.buffered(victim))
    system.kill(victim)
    yield f"SIGKILL with {held} records in hand"
    survivor = system.workers[0]
    assert system.metric(survivor, "stream_rebalances_total") >= 2, "the survivor was given the killed one's partitions"
