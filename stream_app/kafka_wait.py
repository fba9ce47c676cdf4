"""What the worker says while Kafka can't be reached: why, at once and once a minute, and when it is over, how long it was.

Event loop only. The look for the reason is made in a thread of its own, which a stop does not wait for.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

import structlog

from pipeline.errors import RetryableError
from pipeline.kafka_reachability import KafkaUnreachableError, Reachability
from pipeline.outages import Outage, OutageEvent
from stream_app.health import WorkerHealth

log = structlog.get_logger(__name__)

NO_PARTITION_SECONDS = 60.0
"""More than a rebalance takes in which every worker writes what it holds."""

_LOGGED_AS = {"failing": "kafka_failing", "still_failing": "kafka_still_failing", "recovered": "kafka_recovered"}


class KafkaWait:
    """Told whenever Kafka was asked for something."""

    def __init__(self, reachability: Reachability, health: WorkerHealth, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._reachability = reachability
        self._health = health
        self._monotonic = monotonic
        self._outage = Outage()
        self._answered_at = monotonic()
        self._held_none_since: float | None = None

    async def failed(self, error: RetryableError) -> None:
        """It did not answer, or not well. Returns when it is known why: a few seconds later."""
        if self._outage.works:
            self._health.did_not_answer("kafka", error)
        explained = await self._explained(error)
        self._health.did_not_answer("kafka", explained)
        self._say(self._outage.failed(self._monotonic(), explained.code, str(explained), since=self._answered_at))

    def answered(self) -> None:
        """It did what was asked."""
        self._health.answered("kafka")
        self._answered_at = self._monotonic()
        self._say(self._outage.worked(self._answered_at))

    def holds(self, partitions: int) -> None:
        """So many partitions are ours by the group's word; told every few seconds. That it is none for long is said once."""
        if partitions:
            self._held_none_since = None
        elif self._held_none_since is None:
            self._held_none_since = self._monotonic()
        elif self._monotonic() - self._held_none_since >= NO_PARTITION_SECONDS:
            self._held_none_since = float("inf")
            log.warning(
                "no_partition",
                what="the group has as many other workers as the topic has partitions, or more: this one stands by and takes over "
                "when one leaves",
            )

    async def _explained(self, error: RetryableError) -> KafkaUnreachableError:
        loop = asyncio.get_running_loop()
        found = loop.create_future()

        def tell(explained: KafkaUnreachableError) -> None:
            if not found.done():
                found.set_result(explained)

        def look() -> None:
            explained = self._reachability.explain(error)
            with suppress(RuntimeError):  # the loop is closed: the worker has stopped
                loop.call_soon_threadsafe(tell, explained)

        Thread(target=look, name="look for Kafka", daemon=True).start()
        explained: KafkaUnreachableError = await found
        return explained

    def _say(self, event: OutageEvent | None) -> None:
        if event is not None:
            write = log.info if event.kind == "recovered" else log.warning
            write(_LOGGED_AS[event.kind], problem=event.problem, seconds=event.seconds, failures=event.failures)
