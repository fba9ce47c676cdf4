"""A partition's log and its fetching, as the transport shows them to a partition writer."""

from dataclasses import dataclass, field, replace
from typing import TypeAlias

from aiokafka.structs import ConsumerRecord
from login_records import chunk, record

from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.open_transaction import LogEnd
from stream_app.partition_writer import PartitionWriter
from stream_app.positions import Partition

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"


@dataclass
class FakeLog:
    """Implements :class:`stream_app.partition_ports.Log`; a test moves the fetching on by hand."""

    records: list[Record] = field(default_factory=list)
    log_start: int = 0
    open_from: int | None = None
    """First offset of a transaction that is open: nothing is given out from there on."""
    control: frozenset[int] = frozenset()
    """Offsets of control records: the gaps that are none."""
    id: str | None = "the first"
    paused: bool = True
    _next_offset: int | None = None
    _seek_number: int = 0
    _sequence: int = 0

    def append(self, *bodies: bytes | None, offset: int | None = None) -> None:
        """Put records at the log's end, after a gap if ``offset`` is further on."""
        for body in bodies:
            self.records.append(record(body, max(self.log_end, offset or 0)))

    def append_again(self, index: int) -> None:
        """Put one of the records at the log's end once more, as a message that came twice."""
        self.records.append(replace(self.records[index], offset=self.log_end))

    @property
    def log_end(self) -> int:
        return self.records[-1].offset + 1 if self.records else self.log_start

    @property
    def end(self) -> LogEnd:
        return LogEnd(self.log_end, self.log_end if self.open_from is None else self.open_from)

    def fetch(self, count: int) -> Chunk[KafkaRecord] | None:
        """The next chunk: None when paused or at the end."""
        if self.paused or self._next_offset is None:
            return None
        readable = range(max(self._next_offset, self.log_start), self.end.last_stable_offset)
        found = [r for r in self.records if r.offset in readable][:count]
        if not found:
            return None
        first, began = found[0].offset, self._next_offset
        self._next_offset = found[-1].offset + 1
        self._sequence += 1
        before, within = (len(self.control & {*offsets}) for offsets in (range(began, first), range(first, self._next_offset)))
        return chunk(found, seek_number=self._seek_number, sequence=self._sequence - 1, empty=(before, within))

    def deliver(self, writer: PartitionWriter, count: int) -> bool:
        fetched = self.fetch(count)
        if fetched is not None:
            writer.receive(fetched)
        return fetched is not None

    async def topic_id(self, partition: Partition) -> str | None:  # noqa: ARG002 - there is one
        return self.id

    async def log_range(self, partition: Partition) -> tuple[int, int]:  # noqa: ARG002 - there is one
        return self.log_start, self.log_end

    async def seek_to(self, partition: Partition, offset: int) -> int:  # noqa: ARG002 - there is one
        self._next_offset, self._sequence = offset, 0
        self._seek_number += 1
        return self._seek_number

    def hold(self, partition: Partition) -> None:  # noqa: ARG002 - there is one
        self.paused = True

    def release(self, partition: Partition) -> None:  # noqa: ARG002 - there is one
        self.paused = False
