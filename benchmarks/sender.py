"""Sends messages to the queue on a schedule, and never waits for the last one: an open loop. A process of its own.

    python -m benchmarks.sender QUEUE_URL MESSAGES_PER_SECOND SECONDS

Batches are due at even distances; each is sent by whichever of the connections is free. When none is, it goes out late, and how
late is told at the end, in one line of JSON.
"""

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from dev_servers.made_up_logins import made_up_logins
from dev_servers.raw_queue import BATCH_MESSAGES_MAX, RawQueue

CONNECTIONS = 8
BATCHES_PER_SECOND_MIN = 100
"""A slow sender sends one message at a time."""
BODIES = 20_000
START_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Sent:
    """What the process printed."""

    messages: int
    seconds: float
    late_seconds_most: float
    """How long after its time a batch was begun to be sent, at worst."""

    @property
    def messages_per_second(self) -> float:
        """As they were really sent."""
        return self.messages / self.seconds


def parsed(line: str) -> Sent:
    """From the line of JSON."""
    return msgspec.json.decode(line, type=Sent)


def batch_size(messages_per_second: float) -> int:
    """How many messages go together, so that there are some batches every hundredth of a second."""
    return min(max(int(messages_per_second / BATCHES_PER_SECOND_MIN), 1), BATCH_MESSAGES_MAX)


def send(queue_url: str, bodies: Sequence[str], messages_per_second: float, seconds: float) -> Sent:
    """Until so many seconds are over."""
    size = batch_size(messages_per_second)
    batches = int(messages_per_second * seconds / size)
    lock = threading.Lock()
    numbers = iter(range(batches))
    begin = time.monotonic() + START_SECONDS

    def work(_: int) -> float:
        late = 0.0
        with RawQueue(queue_url) as queue:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return late
                due = begin + number * size / messages_per_second
                time.sleep(max(due - time.monotonic(), 0.0))
                late = max(late, time.monotonic() - due)
                first = number * size % len(bodies)
                queue.send(bodies[first : first + size])

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        late = max(pool.map(work, range(CONNECTIONS)))
    return Sent(batches * size, time.monotonic() - begin, late)


def main() -> None:
    """The command line above."""
    queue_url, messages_per_second, seconds = sys.argv[1:]
    bodies = [login.body() for login in made_up_logins(BODIES)]
    sent = send(queue_url, bodies, float(messages_per_second), float(seconds))
    sys.stdout.write(msgspec.json.encode(sent).decode() + "\n")


if __name__ == "__main__":
    main()
