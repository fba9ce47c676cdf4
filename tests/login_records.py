"""Made-up logins as Kafka records, and builders with keysets of their own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from aiokafka.structs import ConsumerRecord
from tink import KeysetHandle, daead, hybrid, prf

from stream_app.app_version import AppVersionEncoding
from stream_app.batch import Batch, BatchBuilder
from stream_app.chunk import Chunk, Piece, memory_bytes
from stream_app.dead_letters import DeadLetter, KafkaRecord, Opener, OriginalRecord, Sealer
from stream_app.masking import keysets
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.positions import Partition
from stream_app.sent_at import SentAtBounds

MESSAGE_ID = "5fea7756-0ea4-451a-a703-a558b933e274"
SENT_AT_MS = 1_763_900_000_000
LOGIN = {
    "user_id": "424cdd21-063a-43a7-b91b-7ca1a833afae",
    "app_version": "2.3.0",
    "device_type": "android",
    "ip": "199.172.111.135",
    "locale": "RU",
    "device_id": "593-47-5928",
}
SENT_AT_BOUNDS = SentAtBounds.of_seconds(31 * 86_400, 86_400)
"""The settings' defaults: a test holds them equal."""
PLACE = Partition("logins", 3)
"""Where all records are read."""

ABSENT = object()


def login(**changes: Any) -> bytes:
    """A login's body with some keys changed; ``ABSENT`` takes one out."""
    return json.dumps({key: value for key, value in {**LOGIN, **changes}.items() if value is not ABSENT}).encode()


def logins(count: int) -> list[bytes]:
    """Bodies of so many logins, all alike."""
    return [login()] * count


def headers(number: int = 0) -> tuple[tuple[str, bytes], ...]:
    """As the bridge writes them, message id and sent at by number."""
    message_id = f"{MESSAGE_ID[:24]}{number:012x}"
    return (("message-id", message_id.encode()), ("sent-at", b"%d" % (SENT_AT_MS + number)), ("source", b"login-queue"))


def record(
    body: bytes | None, offset: int = 0, *, headers_: Any = None, timestamp: int = SENT_AT_MS
) -> ConsumerRecord[bytes, bytes]:
    """A record as aiokafka delivers it."""
    return ConsumerRecord(
        topic=PLACE.topic,
        partition=PLACE.partition,
        offset=offset,
        timestamp=timestamp,
        timestamp_type=0,
        key=b"key",
        value=body,
        checksum=None,
        serialized_key_size=3,
        serialized_value_size=len(body or b""),
        headers=headers(offset) if headers_ is None else headers_,
    )


def records(bodies: Sequence[bytes | None], first_offset: int = 0) -> list[ConsumerRecord[bytes, bytes]]:
    """Records at consecutive offsets."""
    return [record(body, offset) for offset, body in enumerate(bodies, first_offset)]


@cache
def masking_handle() -> KeysetHandle:
    return keysets.new_secret_keyset(keysets.MASKING_TEMPLATE)


@cache
def hmac_handle() -> KeysetHandle:
    return keysets.new_secret_keyset(keysets.MASKING_HMAC_TEMPLATE)


@cache
def dead_letter_handle() -> KeysetHandle:
    return keysets.new_secret_keyset(keysets.DEAD_LETTER_TEMPLATE)


def masking_keyset(handle: KeysetHandle) -> keysets.MaskingKeyset:
    info = handle.keyset_info()
    key_ids = frozenset(key.key_id for key in info.key_info)
    return keysets.MaskingKeyset(handle.primitive(daead.DeterministicAead), key_ids, info.primary_key_id)


def masker(methods: str = "") -> Masker:
    """With the same keysets in each call."""
    return Masker(parse_methods(methods), keyset=masking_keyset(masking_handle()), hmac_keyset=hmac_handle().primitive(prf.PrfSet))


def sealer() -> Sealer:
    return Sealer(dead_letter_handle().public_keyset_handle().primitive(hybrid.HybridEncrypt))


def opened(letter: DeadLetter) -> OriginalRecord:
    """The record that was sealed whole."""
    original = opener().open(letter.sealed, topic=PLACE.topic, partition=PLACE.partition, offset=letter.offset)
    assert isinstance(original, OriginalRecord)
    return original


def opener() -> Opener:
    return Opener(dead_letter_handle().primitive(hybrid.HybridDecrypt))


def builder(methods: str = "", app_version_encoding: AppVersionEncoding = "ordered") -> BatchBuilder:
    return BatchBuilder(masker(methods), sealer(), SENT_AT_BOUNDS, app_version_encoding)


def chunk(
    found: Sequence[ConsumerRecord[bytes, bytes]],
    *,
    next_offset: int | None = None,
    seek_number: int = 0,
    sequence: int = 0,
    empty: tuple[int, int] = (0, 0),
) -> Chunk[KafkaRecord]:
    """A chunk of these records, packed to a tenth of what they take. ``empty``: offsets of control records before and within it."""
    return Chunk(
        found[0],
        lambda start: iter([Piece(iter([one for one in found if one.offset >= start]), len(found), 0)]),
        next_offset=found[-1].offset + 1 if next_offset is None else next_offset,
        packed_bytes=memory_bytes(found) // 10,
        seek_number=seek_number,
        sequence=sequence,
        empty_before=empty[0],
        empty_within=empty[1],
    )


def batch_of(
    found: Sequence[ConsumerRecord[bytes, bytes]],
    first_offset: int,
    next_offset: int,
    *,
    by: BatchBuilder | None = None,
    slice_records: int = 1_000,
) -> Batch:
    """The batch of these records between two positions."""
    made_by = by or builder()
    batch = made_by.begin(PLACE, first_offset)
    if found:
        batch.origins.append(chunk(found))
    for start in range(0, len(found), slice_records):
        made_by.add(batch, found[start : start + slice_records])
    return replace(batch, next_offset=next_offset)


def build(bodies: Sequence[bytes | None], methods: str = "") -> Batch:
    """The batch of these bodies at offsets from 0."""
    return batch_of(records(bodies), 0, len(bodies), by=builder(methods))
