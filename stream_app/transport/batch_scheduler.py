"""Faust's `ConsumerScheduler` extension point: hand over each partition's fetch whole."""

from collections.abc import Iterator, Mapping

from faust.types import TP
from faust.types.transports import SchedulingStrategyT

from stream_app.partition_ports import Chunk


class WholeFetches(SchedulingStrategyT):
    """One item a partition and fetch, where Faust's own strategy yields record by record, round robin."""

    def iterate(self, records: Mapping[TP, Chunk]) -> Iterator[tuple[TP, Chunk]]:  # type: ignore[override] # batch_transport.py fetches chunks
        """Each partition's chunk, in the order of the fetch."""
        return iter(records.items())
