"""CPU seconds and memory of process trees over time, read from /proc by a thread: nothing of what is measured takes part."""

import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.1


def tree(pid: int) -> Iterator[int]:
    """The process and all its descendants that run."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Of a tree, those included that have ended and were waited for. 0 when it is gone."""
    while True:
        ticks = 0
        read = list(tree(pid))
        for one in read:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # proc(5): utime, stime, cutime, cstime
        # What ends meanwhile hands its seconds to its parent, which may have been read before: they'd be missing.
        if set(read) <= set(tree(pid)):
            return ticks * TICK_SECONDS


def resident_bytes(pid: int) -> int:
    """Of a tree."""
    pages = 0
    for one in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * PAGE_BYTES


def machine_cpu_seconds() -> float:
    """Of everything on the machine; time that the hypervisor took away counts as used by others."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) * TICK_SECONDS


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading."""

    at: float
    """Wall clock, seconds since the epoch: Postgres's commit times are of the same clock."""
    cpu: Mapping[str, float]
    resident: Mapping[str, int]
    machine: float


class Meter:
    """Reads the named trees several times a second for as long as it is entered."""

    def __init__(self, trees: Mapping[str, int], seconds: float = SAMPLE_SECONDS) -> None:
        self._trees = dict(trees)
        self._seconds = seconds
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter")

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def cpu(self, name: str, since: float, until: float) -> float:
        """CPU seconds of a tree between two moments."""
        return self._between([(sample.at, sample.cpu[name]) for sample in self._samples], since, until)

    def other_cores(self, since: float, until: float) -> float:
        """How many cores, on average, were busy with something else than these trees."""
        machine = self._between([(sample.at, sample.machine) for sample in self._samples], since, until)
        return max(machine - sum(self.cpu(name, since, until) for name in self._trees), 0.0) / (until - since)

    def resident(self, name: str, since: float = 0.0) -> list[tuple[float, int]]:
        """Bytes of memory of a tree, reading by reading."""
        return [(sample.at, sample.resident[name]) for sample in self._samples if sample.at >= since]

    def resident_most(self, name: str) -> int:
        """The most bytes that a reading found."""
        return max(sample.resident[name] for sample in self._samples)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._read()

    def _read(self) -> None:
        before = self._samples[-1].cpu if self._samples else {}
        # A tree that ended keeps what it had used.
        cpu = {name: max(cpu_seconds(pid), before.get(name, 0.0)) for name, pid in self._trees.items()}
        resident = {name: resident_bytes(pid) for name, pid in self._trees.items()}
        self._samples.append(Sample(time.time(), cpu, resident, machine_cpu_seconds()))

    @staticmethod
    def _between(readings: list[tuple[float, float]], since: float, until: float) -> float:
        return interpolated(readings, until) - interpolated(readings, since)


def interpolated(readings: Sequence[tuple[float, float]], at: float) -> float:
    """The value at a moment, on the straight line between the readings around it; at the ends, the first or last one."""
    if at <= readings[0][0]:
        return readings[0][1]
    if at >= readings[-1][0]:
        return readings[-1][1]
    after = bisect_left([moment for moment, _ in readings], at)
    (t0, v0), (t1, v1) = readings[after - 1], readings[after]
    return v0 + (v1 - v0) * (at - t0) / (t1 - t0)
