"""When each transaction became visible to another session.

That session asks for its snapshot again and again: Postgres's own word on which transactions it sees, without a look at any table.
Afterwards each row's transaction is found in the first snapshot that sees it. The resolution is the time between two questions.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psycopg2

POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one session sees, as ``pg_current_snapshot()`` tells it."""

    at: float
    """Wall clock, when the answer had come."""
    next_transaction: int
    """This one and later ones are not seen."""
    running: frozenset[int]
    """Nor are these."""

    @classmethod
    def parsed(cls, at: float, text: str) -> "Snapshot":
        """From Postgres's text form, ``xmin:xmax:running,running``."""
        _, after, running = text.split(":")
        return cls(at, int(after), frozenset(map(int, running.split(","))) if running else frozenset())

    def sees(self, transaction: int) -> bool:
        """Whether a transaction that committed is seen."""
        return transaction < self.next_transaction and transaction not in self.running


def visible_at(snapshots: Sequence[Snapshot], transaction: int) -> float:
    """When the first of them saw it. Raises :class:`LookupError` when none did."""
    first = bisect_left(snapshots, transaction + 1, key=lambda snapshot: snapshot.next_transaction)
    for snapshot in snapshots[first:]:
        if snapshot.sees(transaction):
            return snapshot.at
    raise LookupError(f"no snapshot sees transaction {transaction}")


class SnapshotWatch:
    """Collects snapshots for as long as it is entered, and one at the end: it sees all that was seen until then."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshots")
        self.snapshots: list[Snapshot] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            is_last = False
            while not is_last:
                is_last = self._stop.wait(POLL_SECONDS)
                cursor.execute("SELECT pg_current_snapshot()::text")
                row = cursor.fetchone()
                if row is not None:
                    self.snapshots.append(Snapshot.parsed(time.time(), row[0]))
