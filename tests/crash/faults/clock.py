"""The clock goes wrong, an hour either way."""

import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from crash.faults import fault
from crash.system import System

OFF_SECONDS = 3_660
"""How far the clock is off: an hour, and a minute, since bounds of an hour are common (Kafka has one)."""

DELAY_SECONDS = 600
"""More than a row takes on the busiest machine, less than the clock is off."""

LIBFAKETIME = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"


def _with_a_clock_of_their_own(system: System) -> Path:
    """Restart everything with a wall clock that is off by the seconds that stand in the file which is returned.

    The library is loaded before libc by the bridge and the workers alone: the servers keep the right time. The monotonic clock is
    the machine's own, as it is when somebody sets a machine's clock.
    """
    clock = system.directory / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(distribution("libfaketime").locate_file(LIBFAKETIME)),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    names = list(system.processes.running)
    assert set(system.processes.stop(*names).values()) == {0}
    for name in names:
        start = system.start_worker if name.startswith("worker") else system.start_bridge
        start(name, **environment)
    system.processes.wait_ready(*names)
    system.wait_flowing()
    return clock


def _set(clock: Path, seconds: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(f"{seconds:+d}")
    new.replace(clock)


def _bridge_is_off_by(system: System) -> float:
    return system.metric(system.bridges[0], "bridge_last_poll_timestamp_seconds") - time.time()


def _written(system: System, worker: str) -> tuple[float, float]:
    """Rows, and the seconds from sent to written that were counted for them."""
    name = "stream_sent_to_written_seconds"
    return system.metric(worker, f"{name}_count"), system.metric(worker, f"{name}_sum")


def _below_zero(system: System) -> set[str]:
    """Metrics of any process that are negative: none may ever be."""
    return {
        sample.name
        for name in system.processes.running
        for family in text_string_to_metric_families(system.processes.scrape(name))
        for sample in family.samples
        if sample.value < 0
    }


def _fits(delay: float, off_seconds: int) -> bool:
    return delay == 0 if off_seconds < 0 else abs(delay - off_seconds) < DELAY_SECONDS


def _runs_with_a_wrong_clock(system: System, off_seconds: int) -> str:
    clock = _with_a_clock_of_their_own(system)
    system.moment()
    rebalances = {name: system.metric(name, "stream_rebalances_total") for name in system.workers}
    _set(clock, off_seconds)
    system.prove("the bridge has the wrong time", lambda: abs(_bridge_is_off_by(system) - off_seconds) < 60)
    system.wait_flowing(300)  # what was on its way, and then some
    before = {name: _written(system, name) for name in system.workers}
    for _ in range(10):
        system.wait_flowing(100)
        assert not (below := _below_zero(system)), f"negative: {below}"
    delays = []
    for name, (rows, seconds) in before.items():
        rows_now, seconds_now = _written(system, name)
        assert rows_now > rows, f"{name} wrote nothing"
        delays.append((seconds_now - seconds) / (rows_now - rows))
    # By a clock that is ahead a row takes an hour, and the minute that it may take after a restart; by one that is behind less than
    # no time, which counts as none. By the right one no row takes no time at all: so this proves the workers' clocks.
    expected = f"the workers' delays are by a clock that is off by {off_seconds} s"
    system.prove(expected, lambda: all(_fits(delay, off_seconds) for delay in delays), 0)
    _set(clock, 0)
    system.mended()
    system.prove("the bridge has the right time", lambda: abs(_bridge_is_off_by(system)) < 60)
    system.wait_flowing(300)
    assert rebalances == {name: system.metric(name, "stream_rebalances_total") for name in system.workers}, "a session ended"
    return f"bridge and workers ran with a clock that was off by {off_seconds} s; delays of {min(delays):.1f} s were counted"


@fault(
    "clock-an-hour-ahead",
    "Rows and dates are right: times come from SQS, waiting goes by the monotonic clock. Delays and lag seem an hour longer.",
    recovery_seconds=10,
)
def clock_ahead(system: System) -> Iterator[str]:
    """The clock of bridge and workers leaps ahead, and after a while back."""
    yield _runs_with_a_wrong_clock(system, OFF_SECONDS)


@fault(
    "clock-an-hour-behind",
    "Rows and dates are right: times come from SQS, waiting goes by the monotonic clock. Delays and lag are 0, never less.",
    recovery_seconds=10,
)
def clock_behind(system: System) -> Iterator[str]:
    """The clock of bridge and workers leaps back, and after a while ahead."""
    yield _runs_with_a_wrong_clock(system, -OFF_SECONDS)
