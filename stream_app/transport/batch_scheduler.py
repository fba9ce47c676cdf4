"""Faust's `ConsumerScheduler` extension point: hand over each partition's fetch whole."""

from collections.abc import Iterator, Mapping

from faust.types import TP
from faust.types.transports import SchedulingStrategyT

from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord


class WholeFetches(SchedulingStrategyT):
    """One item a partition and fetch, where Faust's own strategy yields record by record, round robin."""

    def iterate(self, records: Mapping[TP, Chunk[KafkaRecord]]) -> Iterator[tuple[TP, Chunk[KafkaRecord]]]:  # type: ignore[override] # batch_transport.py fetches chunks
        """Each partition's chunk, in the order of the fetch."""
        return iter(records.items())
