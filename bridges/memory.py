"""What messages cost in memory, from SQS's answer to Kafka's acknowledgement.

Measured on real servers with bodies that are small on the wire and large here (quotes, control characters, escapes, one emoji among
letters); ``docs/decisions/0023`` has the figures. Each number below is the most that a body of any kind takes.
"""

from pipeline.contract import BODY_BYTES_MAX

COPIES = 3
"""Of a body until Kafka has acknowledged it: ours, for another try; librdkafka's own; and what that compressed it to, which is as
large where nothing can be compressed."""

MESSAGE_OVERHEAD_BYTES = 2_560
"""What a message takes beside its body: ids, receipt, headers, and librdkafka's record of it. Measured with 20,000 of them: 1,340,
to which SQS's own receipts add 400, and message groups and trace contexts the rest."""

CHARACTER_BYTES_MAX = 4
"""One emoji among a million letters, and Python keeps each character of the text in four bytes."""

ESCAPE_BYTES_MAX = 6
"""What one byte of a body may take in JSON (``\\u0022``)."""


def held_bytes(messages: int, body_bytes: int) -> int:
    """What so many messages take whose bodies have so many bytes together."""
    return COPIES * body_bytes + messages * MESSAGE_OVERHEAD_BYTES


def answer_bytes(length: int, messages: int) -> int:
    """What an answer of ``length`` bytes takes, with up to so many messages: while it is read and decoded, and when they are held.

    It grows by an eighth more than it has when it is read. It is let go of when it is decoded, before the texts become bodies.
    """
    texts = CHARACTER_BYTES_MAX * min(length, messages * BODY_BYTES_MAX)
    return length + length // 8 + texts + messages * MESSAGE_OVERHEAD_BYTES


def answer_length_max(messages: int) -> int:
    """The longest answer with so many messages; what surrounds a body is not escaped and has a bound of its own."""
    return messages * (ESCAPE_BYTES_MAX * BODY_BYTES_MAX + 65_536)
