"""Puts made-up logins on a topic while something else is measured: at a steady rate, or so that a backlog never ends."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Self

from benchmarks.topics import TopicMessage, TopicProducer
from dev_servers.made_up_logins import made_up_logins

BODIES = 50_000
STEP_SECONDS = 0.01
LINGER_MILLISECONDS = 5

Due = Callable[[int], int]
"""How many messages are to be sent now, when so many were sent before."""


def at_rate(messages_per_second: float) -> Due:
    """As many as time has passed for, from the first question on."""
    begin: float | None = None

    def due(sent: int) -> int:
        nonlocal begin
        if begin is None:
            begin = time.monotonic()
        return int((time.monotonic() - begin) * messages_per_second) - sent

    return due


def endless_messages() -> Iterator[TopicMessage]:
    """Sent now, each with a message id of its own; bodies come again and again."""
    logins = [(login.user_id, login.body()) for login in made_up_logins(BODIES)]
    high = random.getrandbits(64) << 64
    number = 0
    while True:
        for user_id, body in logins:
            number += 1
            yield TopicMessage(user_id, body, str(uuid.UUID(int=high | number, version=4)), time.time_ns() // 1_000_000)


class Feeder:
    """A thread that sends what is due for as long as it is entered; ``sent`` tells how many that were."""

    def __init__(self, bootstrap_servers: str, topic: str, due: Due) -> None:
        self._producer = TopicProducer(bootstrap_servers, topic, linger_milliseconds=LINGER_MILLISECONDS)
        self._messages = endless_messages()
        self._due = due
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self.sent = 0

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """No more from here on; what was sent is in the topic. Raises what ended the thread, if anything did."""
        self._stop.set()
        self._running.result()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(STEP_SECONDS):
            for message in islice(self._messages, max(self._due(self.sent), 0)):
                self._producer.produce(message)
                self.sent += 1
        self._producer.flush()
