"""Where a partition stands, and who may move it.

The position is the next offset to read. It lives in Postgres beside the rows and moves in the statement that writes them, so rows
and position can't part. A claim makes a worker the owner: it raises the epoch, and a write with an older epoch moves nothing. An
offset means something in one topic only, so the id that Kafka gave the topic stands beside it.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Partition(NamedTuple):
    """One partition of a topic. Equal, as a tuple, to Faust's and aiokafka's own."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Position:
    """A stored position: the next offset to read, and the epoch of the claim that wrote it."""

    next_offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to move one partition's position until somebody claims it with a higher epoch."""

    partition: Partition
    epoch: int
    topic_id: str | None = None
    """Kafka's id of the topic that the position belongs to; None where Kafka tells none."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one statement did: ``moved`` is False when the fence refused it, and then nothing was written."""

    moved: bool
    rows: int
    dead_letter_offsets: frozenset[int]
    """Of those that were not there before, or were closed by a replay and are open again."""
    differing_message_ids: frozenset[str] = frozenset()
    """Of rows that were there, with other content than came now."""
