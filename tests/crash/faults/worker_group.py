"""Workers come and go: paused for longer and for less than the session, stopped, added, taken away."""

import time
from collections.abc import Iterator

from crash.faults import fault
from crash.faults.worker import PARTITIONS, partitions_of, skipped
from crash.system import Setup, System

STOP_SECONDS = 10.0
"""FLUSH_SECONDS, and what a process needs to end."""


def epochs(system: System) -> dict[int, int]:
    """How often each partition was claimed."""
    return {partition: epoch for partition, epoch in system.query("SELECT partition, epoch FROM stream_positions")}  # noqa: C416 - pairs


def stop(system: System, *names: str) -> None:
    """SIGTERM; each must end by itself and with 0."""
    codes = system.processes.stop(*names)
    system.prove(f"{' and '.join(names)} ended by themselves", lambda: set(codes.values()) == {0}, 0)


@fault(
    "worker-paused-past-session",
    "A worker that wakes up after others have taken its partitions writes nothing: it is fenced, and says so.",
    recovery_seconds=15,
    setup=Setup(settings={"WINDOW_SECONDS": "1"}),
    soak=True,
)
def paused_past_session(system: System) -> Iterator[str]:
    """SIGSTOP with records in hand until others have claimed and written, then SIGCONT."""
    victim = system.worker
    mine = partitions_of(system, victim)
    system.moment()
    held = system.prove(f"{victim} holds records", lambda: system.buffered(victim))
    system.freeze(victim)
    try:
        before = epochs(system)
        system.prove("others claim its partitions", lambda: all(epochs(system)[p] > before[p] for p in mine), 40)
        positions = system.positions()
        system.prove("and write", lambda: any(system.positions()[p] > positions[p] for p in mine))
    finally:
        system.thaw(victim)
        system.mended()
    system.prove("it is fenced", lambda: system.metric(victim, "stream_writes_fenced_total"))
    yield f"SIGSTOP with {held} records in hand until others had written them, then SIGCONT"
    assert "write_fenced" in system.log(victim)


@fault(
    "worker-blocked-within-session",
    "A worker that does nothing for less than its session keeps its partitions; records wait for it.",
    recovery_seconds=10,
    setup=Setup(settings={"KAFKA_SESSION_TIMEOUT_SECONDS": "20"}),
)
def blocked_within_session(system: System) -> Iterator[str]:
    """SIGSTOP: the event loop, the consumer's thread and the one that serves metrics stand still together."""
    victim = system.worker
    before = epochs(system)
    system.moment()
    system.freeze(victim)
    try:
        system.prove("it answers nobody", lambda: not system.processes.is_ready(victim))
        system.rest(8)
    finally:
        system.thaw(victim)
    yield "SIGSTOP for 10 s of a session of 20 s"
    assert epochs(system) == before, "nobody has claimed its partitions"
    assert skipped(system) == 0


@fault(
    "workers-stopped-and-started",
    "SIGTERM under load: what is in hand is written within FLUSH_SECONDS, and nothing is read a second time.",
    recovery_seconds=15,
    setup=Setup(settings={"WINDOW_SECONDS": "1"}),
)
def stopped_and_started(system: System) -> Iterator[str]:
    """One after the other, as in a deployment; the next when the one before is back."""
    seconds: list[float] = []
    for name in system.workers:
        system.moment()
        began = time.monotonic()
        stop(system, name)
        seconds.append(time.monotonic() - began)
        system.start_worker(name)
        system.mended()
        system.processes.wait_ready(name)
    yield f"SIGTERM; they ended after {' and '.join(f'{each:.1f}' for each in seconds)} s"
    assert max(seconds) < STOP_SECONDS
    assert skipped(system) == 0, "records were read again"


@fault(
    "workers-one-to-four-to-two",
    "Workers that are added share the partitions, those that are stopped give them back, under load.",
    recovery_seconds=15,
    setup=Setup(workers=1),
)
def one_to_four_to_two(system: System) -> Iterator[str]:
    """Each of four writes; then two are stopped."""
    for _ in range(3):
        system.start_worker()
    system.processes.wait_ready()
    system.prove(
        "each of four has a partition", lambda: [len(partitions_of(system, name)) for name in system.workers] == [1] * 4, 60
    )
    written = {name: system.metric(name, "stream_rows_written_total") for name in system.workers}
    system.prove(
        "each of four writes",
        lambda: all(system.metric(name, "stream_rows_written_total") > rows for name, rows in written.items()),
    )
    gone = system.chance.sample(system.workers, 2)
    stop(system, *gone)
    yield f"four had a partition each and wrote; {' and '.join(gone)} were stopped"
    assert sorted(p for name in system.workers for p in partitions_of(system, name)) == list(range(PARTITIONS))
    assert skipped(system) == 0, "records were read again"
