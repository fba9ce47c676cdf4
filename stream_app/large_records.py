"""Records that are too large to be held: what is kept of them instead, made while they pass by."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

FIRST_BYTES = 1_024
"""Of a key or a value that is not kept: enough to see what it was."""


class Excerpt(msgspec.Struct, frozen=True, array_like=True):
    """What stands in for bytes that are not kept."""

    size: int
    sha256: bytes
    first_bytes: bytes

    @classmethod
    def of(cls, parts: Iterable[bytes | memoryview], first_bytes: int = FIRST_BYTES) -> Self:
        """Of bytes that come in parts, none of which is kept."""
        digest, size, first = hashlib.sha256(), 0, b""
        for part in parts:
            digest.update(part)
            size += len(part)
            if len(first) < first_bytes:
                first += bytes(part[: first_bytes - len(first)])
        return cls(size, digest.digest(), first)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeRecord:
    """A record whose key, value and headers together are larger than RECORD_BYTES_MAX, or that can't be unpacked in bounded memory.

    It has the attributes of any record, without key and value, so that nobody decodes it.
    """

    offset: int
    timestamp: int
    size: int | None = None
    """In bytes, as Kafka counts it; None where it could not be unpacked."""
    key_excerpt: Excerpt | None = None
    value_excerpt: Excerpt | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    """The first ones; ``headers_left_out`` says how many there are more."""
    headers_left_out: int = 0
    batch_excerpt: Excerpt | None = None
    """Of the record batch that it came in, packed, where that could not be unpacked; the batch's first record has all of it."""
    key: None = None
    value: None = None
