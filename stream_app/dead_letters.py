"""Dead letters: records that can't become a row, with the reason in the clear and the record itself sealed.

Sealed = Tink hybrid encryption (HPKE) to the operator's public keyset: the worker cannot open what it sealed. The context that is
bound to it is the record's place in Kafka, so a sealed record that was moved to another row of the table doesn't open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from tink import TinkError, hybrid

from pipeline.errors import FatalError
from stream_app.large_records import Excerpt, LargeRecord
from stream_app.masking import keysets
from stream_app.positions import Partition
from stream_app.reasons import Reason
from stream_app.refusals import Refusal


class KafkaRecord(Protocol):
    """A record of one partition, as aiokafka unpacks it."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch; -1 for none."""

    @property
    def key(self) -> bytes | None:
        """What Kafka partitioned by."""

    @property
    def value(self) -> bytes | None:
        """The SQS body."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and values in the order of the producer; a name may come more than once."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that can't become a row. Nothing in the clear is taken from its body."""

    offset: int
    """The record's offset in its partition."""
    message_id: str
    """The SQS MessageId, or what stands in for it."""
    sent_at_ms: int
    """Milliseconds since the epoch."""
    reason: Reason
    field: str | None
    """The name of a declared field, of a header, or of the column that refused it; None when the whole record is meant."""
    sealed: bytes
    """The record as it came, see :class:`OriginalRecord`, or what stands in for it, see :class:`OriginalLargeRecord`."""
    refusal: Refusal | None = None
    """Of a row that Postgres refused."""

    @property
    def refusal_text(self) -> str | None:
        """As it is stored: names of the schema and a SQLSTATE."""
        return None if self.refusal is None else str(self.refusal)


class OriginalRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A record byte for byte, as it is sealed (msgpack; the tag comes first); enough to send it again."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class OriginalLargeRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What is sealed of a record that is too large to be held, see :class:`stream_app.large_records.LargeRecord`.

    It can't be sent again from this, but its origin can be asked for what has this size and this SHA-256.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    size: int | None
    key: Excerpt | None
    value: Excerpt | None
    headers: list[tuple[str, bytes | None]]
    headers_left_out: int
    batch: Excerpt | None
    """Of the record batch, packed, where that could not be unpacked: nothing is then known of key, value and headers."""


Sealed = OriginalRecord | OriginalLargeRecord

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Sealed).decode


def _context(topic: str, partition: int, offset: int) -> bytes:
    return f"login-stream dead letter\0{topic}\0{partition}\0{offset}".encode()


class Sealer:
    """Seals records with the public keyset: 70 us each, and 2.7 us more a KiB."""

    def __init__(self, keyset: hybrid.HybridEncrypt, key_ids: frozenset[int] = frozenset()) -> None:
        self._encrypt = keyset.encrypt
        self.key_ids = key_ids

    @classmethod
    def load(cls, path: Path | None) -> "Sealer":
        """Read the public keyset. Raises :class:`SettingsError` that names the setting; also for a private keyset."""
        return cls(keysets.load_dead_letter_public_keyset(path), keysets.dead_letter_public_key_ids(path))

    def seal(self, place: Partition, record: KafkaRecord) -> bytes:
        """The record as it came, or what stands in for it, openable with the private keyset only."""
        original: Sealed
        if isinstance(record, LargeRecord):
            original = OriginalLargeRecord(
                place.topic,
                place.partition,
                record.offset,
                record.timestamp,
                record.size,
                record.key_excerpt,
                record.value_excerpt,
                list(record.headers),
                record.headers_left_out,
                record.batch_excerpt,
            )
        else:
            original = OriginalRecord(
                place.topic, place.partition, record.offset, record.timestamp, record.key, record.value, list(record.headers)
            )
        return bytes(self._encrypt(_encode(original), _context(place.topic, place.partition, record.offset)))


class Opener:
    """Opens sealed records with the private keyset, which the operator holds."""

    def __init__(self, keyset: hybrid.HybridDecrypt) -> None:
        self._decrypt = keyset.decrypt

    @classmethod
    def load(cls, path: Path | None) -> "Opener":
        """Read the private keyset. Raises :class:`SettingsError` that names the setting."""
        return cls(keysets.load_dead_letter_private_keyset(path))

    def open(self, sealed: bytes, *, topic: str, partition: int, offset: int) -> Sealed:
        """The record as it came, or what stands in for it.

        Raises :class:`FatalError` when this keyset doesn't open it at this place.
        """
        try:
            original: Sealed = _decode(self._decrypt(sealed, _context(topic, partition, offset)))
        except (TinkError, msgspec.DecodeError):
            raise FatalError(
                f"the dead letter of {topic}/{partition} at offset {offset} doesn't open: it was sealed for another keyset than"
                f" {keysets.SETTING_DEAD_LETTER_PRIVATE} names, or it was changed or moved"
            ) from None
        return original
