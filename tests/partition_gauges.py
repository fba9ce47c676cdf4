"""What a partition shows, made up."""

from dataclasses import replace
from typing import Any

from stream_app.metrics import PartitionGauges

IDLE = PartitionGauges(
    topic="logins",
    partition=0,
    next_offset=0,
    log_end_offset=0,
    last_stable_offset=0,
    open_transaction_seconds=0.0,
    oldest_unwritten_seconds=None,
    buffered_records=0,
    buffered_bytes=0,
    stopped=False,
    refused=None,
    paused=False,
)


def partition_gauges(**changes: Any) -> PartitionGauges:
    """Of an idle partition, but for the changes."""
    return replace(IDLE, **changes)
