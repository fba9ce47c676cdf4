"""When a message was sent: what the header ``sent-at`` says, as far as it can be true.

A record comes to Kafka after its message was sent, and not long after: SQS keeps none for more than twice 14 days. To take a time
that says otherwise does harm: after one in the far future every later message would be looked for in Postgres, one by one; after
one long ago the latencies that are added up mean nothing any more. The measure is the record's own timestamp, not a clock: a record
that is read again, a year later, is judged as it was.
"""

import re
from dataclasses import dataclass

SENT_AT_MS_MAX = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_MILLISECONDS = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class SentAtBounds:
    """How far sent at may be from the record's Kafka timestamp. A record without one has nothing to be held against, and fails."""

    age_ms_max: int
    """How long before it: how long a message may have waited before it came to Kafka."""
    ahead_ms_max: int
    """How long after it: how far the clocks of the queue and of Kafka may be apart."""

    @classmethod
    def of_seconds(cls, age_max: float, ahead_max: float) -> "SentAtBounds":
        """As the settings have them."""
        return cls(round(age_max * 1_000), round(ahead_max * 1_000))

    def hold(self, earliest_ms: int, latest_ms: int, first_timestamp_ms: int, last_timestamp_ms: int) -> bool:
        """Whether all times from the earliest to the latest are plausible for all timestamps from the first to the last."""
        return (
            first_timestamp_ms >= 0
            and latest_ms - first_timestamp_ms <= self.ahead_ms_max
            and last_timestamp_ms - earliest_ms <= self.age_ms_max
        )


def parse_sent_at_ms(value: bytes | None) -> int | None:
    """Milliseconds since the epoch; None when the header's value is no such time."""
    if value is None or not _MILLISECONDS.fullmatch(value):
        return None
    sent_at_ms = int(value)
    return sent_at_ms if sent_at_ms <= SENT_AT_MS_MAX else None
