"""Takes what aiokafka has fetched: bounded in bytes as well as in records, and as cheaply as it can be had.

A fetch is bounded in records and in packed bytes only, and a megabyte on the wire can be hundreds in memory. And of the 2.0 us that
aiokafka takes to unpack a record, 0.9 are for a ``ConsumerRecord`` around the record that its C code made, and for the calls on the
way; that record has all that is read here, so it is taken as it is.

Read against aiokafka 0.14.0 (``consumer/fetcher.py``: ``FetchResult.getall``, ``PartitionRecords``, ``Fetcher.fetched_records``).
Everything here runs on the consumer's thread and awaits nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from faust.types import TP

from stream_app.dead_letters import KafkaRecord
from stream_app.windows import memory_bytes

POLL_BYTES_MAX = 8 * 1_048_576
"""One fetch hands over no more than this, and a record: what a partition has beyond stays packed in aiokafka."""

_STEP_RECORDS = 32
"""So many are taken before their size is looked at: with the largest bodies, 32 MiB."""


@dataclass(slots=True)
class Taken:
    """Records by partition, and what they hold in memory."""

    found: dict[TopicPartition, tuple[list[KafkaRecord], int]] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0

    def add(self, partition: TopicPartition, records: list[KafkaRecord]) -> None:
        """Records that follow those of the partition which are here."""
        if records:
            added = memory_bytes(records)
            before, size = self.found.get(partition, ([], 0))
            before += records
            self.found[partition] = (before, size + added)
            self.rows += len(records)
            self.bytes += added


def take_fetched(fetcher: Any, partitions: Collection[TP], taken: Taken, records_max: int) -> None:
    """Add what aiokafka's ``fetcher`` holds of these partitions to ``taken``, up to so many records and POLL_BYTES_MAX.

    An error in the data (a corrupt batch) must end the worker, as it does: records that were taken before it would otherwise be
    passed over.
    """
    for partition in list(fetcher._records):  # noqa: SLF001 - see the module
        result = fetcher._records[partition]  # noqa: SLF001
        if partition not in partitions or type(result) is not FetchResult:
            continue
        while result.has_more() and taken.rows < records_max and taken.bytes < POLL_BYTES_MAX:
            taken.add(partition, _unpack(result, min(_STEP_RECORDS, records_max - taken.rows)))
        if not result.has_more():
            del fetcher._records[partition]  # noqa: SLF001
            fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001 - the next fetch may go out
        if taken.rows >= records_max or taken.bytes >= POLL_BYTES_MAX:
            return


def _unpack(result: Any, count: int) -> list[KafkaRecord]:
    """``FetchResult.getall``, without a Python call for each record. Nothing once the partition was sought or taken away."""
    if not result.check_assignment(result._topic_partition):  # noqa: SLF001 - see the module
        return []
    unpacked = result._partition_records  # noqa: SLF001
    unpacked._consumer_record = _as_it_is  # noqa: SLF001 - what would make a ConsumerRecord of each
    records = list(islice(unpacked._records_iterator, count))  # noqa: SLF001
    result._update_position()  # noqa: SLF001
    if len(records) < count:
        result._partition_records = None  # noqa: SLF001 - as getall() says that there is no more
    return cast("list[KafkaRecord]", records)


def _as_it_is(_: TopicPartition, record: object) -> object:
    return record
