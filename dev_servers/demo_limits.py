"""What held the demo up: where messages waited, and who used the machine's cores."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from dev_servers.demo_progress import Counts

BUSY_SHARE = 0.85
"""From here on the machine itself is the limit."""
WAITING_SHARE = 0.1
"""Of all messages, on average: from here on they wait for whoever comes next."""
OURSELVES = "sending"
SHARE_MIN = 0.005
SHOWN: Mapping[str, str] = {
    "elasticmq": "ElasticMQ (for SQS)",
    "kafka": "Kafka",
    "postgres": "Postgres",
    "worker": "workers",
    "prometheus": "Prometheus",
}


@dataclass(frozen=True, slots=True)
class Use:
    """Of the machine, over some time."""

    seconds: float
    cores: int
    busy_seconds: float
    """Of all cores together, by whomever."""
    cpu_seconds: Mapping[str, float]
    """By name."""


class CoreMeter:
    """CPU seconds of named processes and their children between two moments."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}

    def look(self, pids: Mapping[str, int]) -> None:
        """Call now and then: what a process used that was ended in between is known from the last time."""
        for name, pid in {**pids, OURSELVES: os.getpid()}.items():
            used = _tree_seconds(pid, with_children=name != OURSELVES)
            self._names[pid] = name.partition("-")[0]
            self._first.setdefault(pid, used)
            self._last[pid] = max(used, self._last.get(pid, 0.0))

    def use(self) -> Use:
        """Since this object was made."""
        by_name: dict[str, float] = {}
        for pid, name in self._names.items():
            by_name[name] = by_name.get(name, 0.0) + self._last[pid] - self._first[pid]
        return Use(time.monotonic() - self._began, psutil.cpu_count() or 1, _busy_seconds() - self._busy, by_name)


@dataclass(slots=True)
class Waiting:
    """How many messages waited where, on average over the looks."""

    looks: int = 0
    in_queue: float = 0.0
    in_topic: float = 0.0
    last: Counts | None = field(default=None)

    def add(self, counts: Counts) -> None:
        """One look; none counts before the first message is sent, or after the last one was."""
        if counts.sent and (self.last is None or counts.sent != self.last.sent):
            self.looks += 1
            self.in_queue += (counts.queued - self.in_queue) / self.looks
            self.in_topic += (max(counts.in_topic - counts.finished, 0) - self.in_topic) / self.looks
        self.last = counts


def what_limited(use: Use, waiting: Waiting, total: int) -> list[str]:
    """In one sentence, and who used the cores, as lines to print."""
    busy_cores = use.busy_seconds / use.seconds
    if busy_cores >= BUSY_SHARE * use.cores:
        limit = "this machine, which everything shares"
    elif waiting.in_queue >= WAITING_SHARE * total and waiting.in_queue >= waiting.in_topic:
        limit = "the queue and the bridge: messages waited there"
    elif waiting.in_topic >= WAITING_SHARE * total:
        limit = "the workers and Postgres: messages waited in the topic"
    else:
        limit = "sending: whatever was sent went through at once"
    shares = (
        {SHOWN.get(name, name): seconds / use.busy_seconds for name, seconds in use.cpu_seconds.items()} if use.busy_seconds else {}
    )
    shares["others"] = max(1.0 - sum(shares.values()), 0.0)
    users = sorted(shares.items(), key=lambda user: -user[1])
    return [
        f"What limited it: {limit}. {busy_cores:.1f} of {use.cores} cores were busy:",
        "  " + " · ".join(f"{name} {share:.0%}" for name, share in users if share >= SHARE_MIN),
        "  A worker alone, from a topic that is full: make bench-worker",
    ]


def _busy_seconds() -> float:
    times = psutil.cpu_times()._asdict()
    idle = (
        times["idle"] + times.get("iowait", 0.0) + times.get("guest", 0.0) + times.get("guest_nice", 0.0)
    )  # guests are in user, too
    return float(sum(times.values()) - idle)


def _tree_seconds(pid: int, *, with_children: bool) -> float:
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *(process.children(recursive=True) if with_children else ())]:
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                seconds += times.user + times.system
                if with_children:
                    seconds += times.children_user + times.children_system
    return seconds
