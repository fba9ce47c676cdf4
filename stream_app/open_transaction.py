"""Notices a transaction that stays open in a partition: until it ends, nobody is given what lies behind its first record.

Kafka gives a consumer that reads only what is committed no record from the last stable offset on: that is the first offset of the
oldest transaction that is still open, whoever's it is, or the log's end when none is. One whose producer has crashed or hangs is
aborted by the broker when its time is over (the producer's ``transaction.timeout.ms``; 15 minutes at most, by the broker's
default). One that its coordinator knows nothing of any more, which Kafka's tools call hanging, stays open until somebody aborts it.

So each end of a log has its question: how much waits is counted to the log end offset; whether a record should have come by now, to
the last stable offset.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

OPEN_SECONDS: Final = 30.0
"""From then on a transaction is named, in the log and by /readyz. A producer that commits every few seconds has one open at nearly
every look, but never the same one."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where a partition's log ends: for who counts what is there, and for who reads it."""

    log_end_offset: int
    """Of the next record to come."""
    last_stable_offset: int
    """What is read ends here: the first offset of the oldest open transaction, or the log end offset."""

    @property
    def transaction_is_open(self) -> bool:
        """Whether one is; true of one moment only if the last stable offset was asked for last."""
        return self.last_stable_offset < self.log_end_offset


class TransactionWatch:
    """Told of one partition's ends every few seconds. Written by one thread; others may read."""

    def __init__(self, topic: str, partition: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._place = f"{topic}/{partition}"
        self._log = log.bind(topic=topic, partition=partition)
        self._monotonic = monotonic
        self.end: LogEnd | None = None
        """As it was told last."""
        self.seconds = 0.0
        """For how long the oldest open transaction has been seen open; 0 when there is none. Not longer while nobody tells."""
        self._since: float | None = None
        self._producer: int | str | None = None  # None: it is not named yet

    def saw(self, end: LogEnd) -> None:
        """The log's ends, as Kafka has just told them."""
        is_same = self.end is not None and self.end.last_stable_offset == end.last_stable_offset
        if self._since is not None and not (is_same and end.transaction_is_open):
            if self._producer is not None:
                self._log.info("transaction_over", open_seconds=round(self.seconds), last_stable_offset=end.last_stable_offset)
            self._since = self._producer = None
            self.seconds = 0.0
        self.end = end
        if end.transaction_is_open:
            now = self._monotonic()
            self._since = now if self._since is None else self._since
            self.seconds = now - self._since

    @property
    def unnamed_at(self) -> int | None:
        """First offset of a transaction that has been open for long and that :meth:`name` was not called for; None without one."""
        if self.end is None or self._producer is not None or self.seconds < OPEN_SECONDS:
            return None
        return self.end.last_stable_offset

    def name(self, producer: int | str) -> None:
        """Say that it is open, once. ``producer``: its id, or why nobody knows it."""
        if self.end is None:
            return
        self._producer = producer
        self._log.warning(
            "transaction_open",
            producer_id=producer,
            open_seconds=round(self.seconds),
            last_stable_offset=self.end.last_stable_offset,
            log_end_offset=self.end.log_end_offset,
            what="nothing behind it is read until it ends; see the runbook, A transaction is open",
        )

    @property
    def problem(self) -> str | None:
        """What is waited for, in words, of a transaction that is named; None without one."""
        producer, end = self._producer, self.end
        if producer is None or end is None:
            return None
        return (
            f"a transaction of producer {producer} has been open for {self.seconds:.0f} s at offset {end.last_stable_offset}:"
            f" nothing of {self._place} is read from there on until it ends"
        )
