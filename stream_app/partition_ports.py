"""What a partition's writer asks of Kafka, of Postgres and of the memory that all of them share."""

import asyncio
from typing import Protocol

from stream_app.batch import Batch
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.postgres.table_check import TableCheck


class Log(Protocol):
    """A partition's log in Kafka and its fetching. What is awaited may raise :class:`pipeline.errors.RetryableError`."""

    async def topic_id(self, partition: Partition) -> str | None:
        """Kafka's id of its topic: one of the same name made anew has another. None where Kafka tells none (before 2.8)."""

    async def log_range(self, partition: Partition) -> tuple[int, int]:
        """The first offset that the log still has, and its end: the offset of the next record to come, open transactions or not."""

    async def seek_to(self, partition: Partition, offset: int) -> int:
        """Fetch from ``offset`` on; the number that chunks fetched from there carry as ``seek_number``."""

    def hold(self, partition: Partition) -> None:
        """Fetch no more until :meth:`release`; what was fetched is still delivered."""

    def release(self, partition: Partition) -> None:
        """Fetch again."""


class Store(Protocol):
    """Positions, rows and dead letters in Postgres. Each call may raise what ``postgres/pool.py`` says of its statements."""

    async def check_tables(self) -> TableCheck:
        """What the catalog says of the tables, before a row is refused; raises nothing for it, see :meth:`TableCheck.refuse`.

        Raises :class:`pipeline.errors.SettingsError` if CREATE_DATE_TIME_ZONE is no time zone of the server's.
        """

    async def position(self, partition: Partition) -> Position | None:
        """Where the partition stands; None if it was never claimed."""

    async def claim(self, partition: Partition, start: int, topic_id: str | None) -> tuple[Claim, int]:
        """Become the partition's owner; the claim, with the topic's id that is stored, and the position.

        ``start`` is the position of a new partition; ``topic_id`` is stored where none is.
        """

    async def newest_sent_at_ms(self) -> int:
        """The latest sent at of all rows, in milliseconds since the epoch; 0 without rows."""

    async def replay_key(self) -> bytes | None:
        """What marks of replayed records verify with; None: none does."""

    async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        """Write a batch under a claim; ``moved`` False: refused by the fence, nothing was written.

        Messages sent later than ``newest_ms`` are taken not to be there yet; None: each is looked for. Raises
        :class:`stream_app.postgres.errors.NotUniqueError` if one of them is there, or a unique index of the owner's own refuses a
        row; then nothing was written.
        """


class Budget:
    """Memory that all partitions of a worker share: half is for records that wait packed, half for batches on their way."""

    def __init__(self, bytes_max: int, batches_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.batches_max = batches_max
        self.turns = asyncio.Semaphore(batches_max)
        """One for each batch from when it is built until it is written. A partition that waits for its turn gets a larger batch."""
        self.partitions = 1
        """How many share it."""

    @property
    def exceeded(self) -> bool:
        """Whether fetching must wait."""
        return self.bytes_used >= self.bytes_max

    @property
    def window_bytes_max(self) -> int:
        """Of what waits in one partition, packed."""
        return self.bytes_max // 2 // self.partitions

    @property
    def batch_bytes_max(self) -> int:
        """Of one batch, unpacked: each partition may have two, all together as many as there are turns."""
        return self.bytes_max // 2 // min(2 * self.partitions, self.batches_max)
