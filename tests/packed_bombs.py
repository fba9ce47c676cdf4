"""Record batches that unpack to far more than they are, made without holding it."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat

import cramjam
import lz4.frame
import zstandard
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.default_records import DefaultRecordBase
from aiokafka.record.util import calc_crc32c, encode_varint
from aiokafka.structs import TopicPartition
from login_records import headers

from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.fetched_records import _unpack, first_of

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {"gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
MEBIBYTE = 1_048_576
XERIAL = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"
XERIAL_BLOCK_BYTES = 32_768

Body = bytes | int | None
"""A body, or so many zeros."""
Headers = Sequence[tuple[str, bytes | None]]


def number(value: int) -> bytes:
    """A number as Kafka packs it."""
    packed = bytearray()
    encode_varint(value, packed.append)
    return bytes(packed)


def _sized(value: bytes | None) -> bytes:
    return number(-1) if value is None else number(len(value)) + value


def record_parts(place: int, body: Body, headers_: Headers, key: Body = b"key", time_delta: int = 0) -> Iterator[bytes]:
    """A record, with its length, in parts of no more than a mebibyte."""

    def parts(content: Body) -> tuple[int, Iterable[bytes]]:
        if content is None:
            return 1, [number(-1)]
        size = content if isinstance(content, int) else len(content)
        start = number(size)
        if isinstance(content, bytes):
            return len(start) + size, [start, content]
        return len(start) + size, chain([start], repeat(bytes(MEBIBYTE), size // MEBIBYTE), [bytes(size % MEBIBYTE)])

    first = b"\0" + number(time_delta) + number(place)
    key_bytes, key_parts = parts(key)
    body_bytes, body_parts = parts(body)
    last = number(len(headers_)) + b"".join(_sized(name.encode()) + _sized(value) for name, value in headers_)
    return chain([number(len(first) + key_bytes + body_bytes + len(last)) + first], key_parts, body_parts, [last])


def packed_by(codec: int, parts: Iterable[bytes]) -> bytes:
    """These bytes, packed. Snappy in the Java client's frame."""
    if codec == GZIP:
        gzip = zlib.compressobj(9, wbits=31)
        return b"".join(map(gzip.compress, parts)) + gzip.flush()
    if codec == LZ4:
        frame = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX64KB, block_linked=False)
        return b"".join([frame.begin(), *map(frame.compress, parts), frame.flush()])
    if codec == ZSTD:
        stream = zstandard.ZstdCompressor().compressobj()
        return b"".join(map(stream.compress, parts)) + stream.flush()
    if codec == SNAPPY:
        blocks = [XERIAL]
        for part in parts:
            for at in range(0, len(part), XERIAL_BLOCK_BYTES):
                block = bytes(cramjam.snappy.compress_raw(part[at : at + XERIAL_BLOCK_BYTES]))
                blocks += [len(block).to_bytes(4, "big"), block]
        return b"".join(blocks)
    return b"".join(parts)


def batch_of_packed(codec: int, packed: bytes, count: int, first_offset: int = 0) -> bytes:
    """A record batch around packed records, with a checksum that is right."""
    after_checksum = DefaultRecordBase.HEADER_STRUCT.pack(
        first_offset, DefaultRecordBase.HEADER_STRUCT.size - 12 + len(packed), -1, 2, 0, codec, count - 1, 1_000,
        2_000, -1, -1, -1, count,
    )  # fmt: skip
    data = bytearray(after_checksum + packed)
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def bomb(codec: int, bodies: Sequence[Body], first_offset: int = 0, *, headers_: Sequence[Headers] | None = None) -> bytes:
    """A record batch of these bodies with the bridge's headers, or others."""
    parts = chain.from_iterable(
        record_parts(place, body, list(headers(first_offset + place)) if headers_ is None else headers_[place], time_delta=place)
        for place, body in enumerate(bodies)
    )
    return batch_of_packed(codec, packed_by(codec, parts), len(bodies), first_offset)


def chunk_of(answer: bytes, start: int = 0) -> Chunk[KafkaRecord]:
    """What the transport makes of an answer with these record batches."""
    unpack = partial(_unpack, TopicPartition("logins", 0), answer, [], READ_COMMITTED)
    first, next_offset = first_of(TopicPartition("logins", 0), answer, [], READ_COMMITTED, start)
    assert first is not None
    return Chunk(first, unpack, next_offset=next_offset, packed_bytes=len(answer), seek_number=0, sequence=0)
