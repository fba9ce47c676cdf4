"""What compaction took of a partition's log: offsets that nothing stands at, not even what would be no record to anybody.

The headers of record batches tell control records and what transactions took back. Whatever else is missing between two offsets,
retention aside, was removed by Kafka's log cleaner: a record that nobody had read, or what was left of a transaction; which of the
two nobody can tell. So it is counted as lost, by the log alone: the topic's cleanup.policy may have been altered meanwhile.
"""

import time
from collections.abc import Callable

import structlog

from stream_app.metrics import WorkerMetrics
from stream_app.positions import Partition

log = structlog.get_logger(__name__)

SAID_AGAIN_SECONDS = 60.0


class CompactedRecords:
    """Counts them for one partition, and says so once a minute at most."""

    def __init__(self, partition: Partition, metrics: WorkerMetrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._log = log.bind(topic=partition.topic, partition=partition.partition)
        self._monotonic = monotonic
        self._said_at: float | None = None
        self._unsaid = 0

    def count(self, records: int, from_offset: int, to_offset: int) -> None:
        """So many are missing between these offsets; none, if it is no more than 0."""
        if records <= 0:
            return
        self._metrics.records_compacted.inc(records)
        self._unsaid += records
        now = self._monotonic()
        if self._said_at is None or now - self._said_at >= SAID_AGAIN_SECONDS:
            self._log.error("records_lost_by_compaction", records=self._unsaid, from_offset=from_offset, to_offset=to_offset)
            self._said_at, self._unsaid = now, 0
