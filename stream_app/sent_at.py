"""When a record was sent: what its header ``sent-at`` says, within bounds around the time that Kafka gave the record.

Whoever may write into the topic may write any time there. One of 1970, or seconds in place of milliseconds, would spoil every
figure of how late rows are; one of the year 9999 would make each later row be looked for (``newest_sent_at`` in ``worker.sql``).
The measure is the record's own timestamp, not a clock: a record that is read again, a year later, is judged as it was. In a topic
that we make, that timestamp is the broker's; where producers set it, it is as trustworthy as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.contract import HEADER_SENT_AT
from pipeline.errors import PoisonError
from stream_app.reasons import Reason

SENT_AT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""

AGE_SECONDS_MAX = 31 * 86_400
"""SQS keeps a message for 14 days at most, and as long again in a dead-letter queue from which it may come back."""

AHEAD_SECONDS_MAX = 3_600
"""SQS's clock against the broker's: seconds, where both are kept; an hour is a clock that nobody keeps."""

_MILLISECONDS = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class SentAtBounds:
    """How far sent at may lie from a record's Kafka timestamp."""

    age_ms_max: int = AGE_SECONDS_MAX * 1_000
    """Before it."""
    ahead_ms_max: int = AHEAD_SECONDS_MAX * 1_000
    """After it."""

    @classmethod
    def of_seconds(cls, age: float, ahead: float) -> "SentAtBounds":
        """Bounds in the settings' unit."""
        return cls(int(age * 1_000), int(ahead * 1_000))

    def allow(self, sent_at_ms: int, timestamp_ms: int) -> bool:
        """Whether a record with this Kafka timestamp may have been sent then; never, if it has no timestamp."""
        return timestamp_ms >= 0 and timestamp_ms - self.age_ms_max <= sent_at_ms <= timestamp_ms + self.ahead_ms_max

    def allow_all(self, sent_at_ms: Sequence[bytes], timestamps_ms: Sequence[int]) -> bool:
        """The same of a column, whose texts have 13 digits each: so their order is that of the times."""
        first, last = min(timestamps_ms), max(timestamps_ms)
        if self.allow(int(min(sent_at_ms)), last) and self.allow(int(max(sent_at_ms)), first):
            return True  # what lies within the bounds of the first and of the last does so of each between them
        return all(map(self.allow, map(int, sent_at_ms), timestamps_ms))


def read_sent_at_ms(value: bytes | None, timestamp_ms: int, bounds: SentAtBounds) -> int:
    """The header's value in milliseconds since the epoch. Raises :class:`PoisonError`: no time, or none that can be."""
    if value is None or not _MILLISECONDS.fullmatch(value) or (sent_at_ms := int(value)) > SENT_AT_MS_MAX:
        raise PoisonError(Reason.HEADER_INVALID, HEADER_SENT_AT)
    if not bounds.allow(sent_at_ms, timestamp_ms):
        raise PoisonError(Reason.SENT_AT_IMPLAUSIBLE, HEADER_SENT_AT)
    return sent_at_ms
