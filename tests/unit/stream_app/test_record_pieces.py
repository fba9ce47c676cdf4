"""Over record batches that unpack to more than they should; whole fetches are in test_fetched_records.py."""

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain, islice
from random import Random
from typing import Any

import cramjam
import pytest
import zstandard
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from login_records import headers, login
from packed_bombs import (
    CODECS,
    MEBIBYTE,
    SNAPPY,
    ZSTD,
    Body,
    Headers,
    batch_of_packed,
    bomb,
    chunk_of,
    number,
    packed_by,
    record_parts,
)

from pipeline.contract import RECORD_BYTES_MAX
from pipeline.errors import FatalError
from stream_app.chunk import AbandonedError, Chunk, Piece, Unread, Unreadable
from stream_app.dead_letters import KafkaRecord
from stream_app.large_records import FIRST_BYTES, LargeRecord
from stream_app.transport.fetched_records import _unpack
from stream_app.transport.record_pieces import HEADERS_BYTES_MAX, HEADERS_MAX, PIECE_BYTES_MAX

FIRST = TopicPartition("logins", 0)
LARGE = 40 * MEBIBYTE
PEAK_BYTES = 12 * MEBIBYTE
"""Of Python's memory while one is gone through: pieces, and what is held beside them."""
TOO_LARGE_BLOCK = 33 * MEBIBYTE

every_codec = pytest.mark.parametrize("codec", [0, *CODECS.values()], ids=["none", *CODECS])


def unpack(data: bytes) -> Callable[[int], Iterator[Piece[KafkaRecord] | Unread[KafkaRecord]]]:
    return lambda start: _unpack(FIRST, data, [], READ_COMMITTED, start)


def batches(data: bytes) -> Iterator[Any]:
    reader = MemoryRecords(data)
    while reader.has_next():
        yield reader.next_batch()


def all_of(it: Chunk[KafkaRecord], step: int = 32) -> list[KafkaRecord]:
    """Every record, as a partition's writer takes them."""
    found: list[KafkaRecord] = []
    while it.next is not None:
        assert not isinstance(it.next, Unreadable), it.next
        it.read_next()
        found += it.take(step)
    assert len(found) + it.offsets_without_record == it.next_offset - it.first_offset
    return found


def offsets(found: list[KafkaRecord]) -> list[int]:
    return [record.offset for record in found]


def theirs(data: bytes) -> list[tuple[object, ...]]:
    """What aiokafka unpacks of it."""
    found = PartitionRecords(FIRST, MemoryRecords(data), [], 0, None, None, True, READ_COMMITTED)  # noqa: FBT003
    return [(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in found]


def ours(found: list[KafkaRecord]) -> list[tuple[object, ...]]:
    return [(each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in found]


def plain(size: int, seed: int = 1) -> list[Body]:
    """Ordinary logins that come to so many bytes, and pack well."""
    chance, bodies, total = Random(seed), list[Body](), 0  # noqa: S311 - made-up data
    while total < size:
        bodies.append(login(user_id=f"u{chance.getrandbits(40)}", extra="y" * chance.randrange(2_000)))
        total += len(bodies[-1] or b"")  # type: ignore[arg-type] # bytes
    return bodies


@every_codec
def test_a_record_too_large_to_be_held_is_hashed_in_passing_and_its_neighbours_come(codec: int) -> None:
    data = bomb(codec, [login(), login(), LARGE, login(), LARGE, login()], 100)
    it = chunk_of(data, 100)

    tracemalloc.start()
    try:
        found = all_of(it)
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES + (len(data) if codec == 0 else 0)
    finally:
        tracemalloc.stop()

    assert offsets(found) == list(range(100, 106))
    assert [record.value for record in found] == [login(), login(), None, login(), None, login()]
    large = found[2]
    assert isinstance(large, LargeRecord)
    assert large.value_excerpt is not None
    assert (large.value_excerpt.size, large.value_excerpt.first_bytes) == (LARGE, bytes(FIRST_BYTES))
    assert large.value_excerpt.sha256 == hashlib.sha256(bytes(LARGE)).digest()
    assert large.key_excerpt is not None
    assert (large.key_excerpt.first_bytes, large.timestamp, large.batch_excerpt) == (b"key", 1_002, None)
    assert (list(large.headers), large.headers_left_out) == (list(headers(102)), 0)
    assert large.size is not None
    assert LARGE < large.size < LARGE + 1_000


@every_codec
def test_what_is_fetched_first_is_not_gone_through_by_who_fetches_it(codec: int) -> None:
    it = chunk_of(bomb(codec, [LARGE, login()]))
    assert isinstance(it.next, Unread)
    assert (it.next.is_at_rest, it.next.offset, it.next.timestamp, it.rows) == (True, 0, 1_000, 2)
    assert it.take(10) == [], "it is not taken before it is read"
    assert offsets(all_of(it)) == [0, 1]


@every_codec
@pytest.mark.parametrize("size", [PIECE_BYTES_MAX // 2, 3 * PIECE_BYTES_MAX])
def test_an_ordinary_batch_is_what_aiokafka_makes_of_it_however_much_it_unpacks_to(codec: int, size: int) -> None:
    data = bomb(codec, plain(size))
    assert ours(all_of(chunk_of(data))) == theirs(data)


def test_thirty_megabytes_of_ordinary_records_take_little_memory() -> None:
    bodies = plain(30 * MEBIBYTE)
    data = bomb(ZSTD, bodies)
    tracemalloc.start()
    try:
        it, count = chunk_of(data), 0
        while it.next is not None:
            count += len(it.take(32))
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
    assert count == len(bodies), "none of it takes long to go through"


@every_codec
@pytest.mark.parametrize("over", [0, 1])
def test_the_bound_is_the_same_however_a_record_is_packed(codec: int, over: int) -> None:
    around = 1 + len(number(0)) + len(number(0)) + len(_key()) + len(number(0)) + len(number(RECORD_BYTES_MAX))
    body = RECORD_BYTES_MAX - around + over
    data = bomb(codec, [body], headers_=[[]])
    (found,) = all_of(chunk_of(data))
    assert isinstance(found, LargeRecord) == bool(over)


def _key() -> bytes:
    return number(3) + b"key"


@every_codec
@pytest.mark.parametrize("start", [1, 2, 3, 4, 5])
def test_a_position_in_the_middle_of_it_is_gone_to(codec: int, start: int) -> None:
    data = bomb(codec, [login(), LARGE, login(), LARGE, login(), login()])
    it = chunk_of(data, start)
    assert isinstance(it.next, Unread), "that takes long, too"
    assert it.next.offset == start
    assert offsets(all_of(it)) == list(range(start, 6))


def test_a_record_behind_a_large_one_is_unpacked_once_more() -> None:
    it = chunk_of(bomb(ZSTD, [login(), LARGE, login(user_id="second")]))
    assert offsets(all_of(it)) == [0, 1, 2]
    assert it.has_unread
    assert b"second" in (it.original(2).value or b"")


def test_what_is_abandoned_ends_soon() -> None:
    it = chunk_of(bomb(ZSTD, [login(), LARGE]))
    it.take(1)
    assert isinstance(it.next, Unread)
    it.abandon()
    with pytest.raises(AbandonedError):
        it.read_next()


# --- keys and headers


def test_a_large_key_is_no_more_held_than_a_large_body() -> None:
    parts = chain(record_parts(0, login(), [], key=LARGE), record_parts(1, login(), []))
    large, other = all_of(chunk_of(batch_of_packed(ZSTD, packed_by(ZSTD, parts), 2)))
    assert isinstance(large, LargeRecord)
    assert large.key_excerpt is not None
    assert large.value_excerpt is not None
    assert (large.key_excerpt.size, large.value_excerpt.first_bytes) == (LARGE, login())
    assert other.value == login()


@pytest.mark.parametrize(
    "bodies_headers",
    [
        (login(), [("message-id", b"1"), ("x", bytes(2 * MEBIBYTE)), ("y", None)], 1),
        (login(), [("message-id", b"1"), *[("", None)] * MEBIBYTE], HEADERS_MAX),
        (2 * MEBIBYTE, [("x", bytes(HEADERS_BYTES_MAX - 1)), ("y", b"")], 1),
        (2 * MEBIBYTE, [("x", None), ("y", b""), ("x", b"2")], 3),
        (2 * MEBIBYTE, [], 0),
    ],
    ids=["one-large", "very-many", "full", "all", "none"],
)
def test_headers_are_kept_as_far_as_their_bound(bodies_headers: tuple[Body, Headers, int]) -> None:
    body, headers_, kept = bodies_headers
    large, last = all_of(chunk_of(bomb(ZSTD, [body, login()], headers_=[headers_, []])))
    assert isinstance(large, LargeRecord)
    assert list(large.headers) == list(headers_[:kept])
    assert large.headers_left_out == len(headers_) - kept
    assert last.value == login()


def test_a_record_of_headers_counts_as_what_they_take() -> None:
    """Half a million of them fit into what a record may be, and take thirty times as much."""
    it = chunk_of(bomb(ZSTD, [login(), login()], headers_=[[("", None)] * 500_000, []]))
    assert it.bytes > 50 * MEBIBYTE
    assert len(it.take(2)) == 2
    assert it.unpacked_bytes > MEBIBYTE - 100_000


# --- what can't be unpacked within bounds


def _raw_snappy(bodies: list[Body]) -> bytes:
    unpacked = b"".join(chain.from_iterable(record_parts(place, body, list(headers(place))) for place, body in enumerate(bodies)))
    return bytes(cramjam.snappy.compress_raw(unpacked))


def test_one_block_of_snappy_is_unpacked_in_parts_where_that_is_within_bounds() -> None:
    bodies: list[Body] = [login(), 20 * MEBIBYTE, login()]
    found = all_of(chunk_of(batch_of_packed(SNAPPY, _raw_snappy(bodies), 3)))
    assert [record.value for record in found] == [login(), None, login()]


def _wide_zstd(bodies: list[Body]) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    parts = chain.from_iterable(record_parts(place, body, list(headers(place))) for place, body in enumerate(bodies))
    return b"".join(map(stream.compress, parts)) + stream.flush()


REFUSED = {
    "snappy-claims-2-gib": (SNAPPY, b"\xff\xff\xff\xff\x07" + b"nonsense"),
    "snappy-holds-more": (SNAPPY, _raw_snappy([login(), TOO_LARGE_BLOCK, login()])),
    "zstd-window": (ZSTD, _wide_zstd([login()] * 3)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_unpacked_within_bounds_is_told_of_for_each_of_its_records(kind: str) -> None:
    codec, packed = REFUSED[kind]
    data = batch_of_packed(codec, packed, 3, 10)
    around = bomb(codec, [login()], 9) + data + bomb(codec, [login()], 13)
    tracemalloc.start()
    try:
        before, *refused, behind = all_of(chunk_of(around, 9))
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
    assert (before.value, behind.value) == (login(), login())
    assert offsets(refused) == [10, 11, 12]
    for place, each in enumerate(refused):
        assert isinstance(each, LargeRecord)
        assert each.batch_excerpt is not None
        assert (each.batch_excerpt.size, each.batch_excerpt.sha256) == (len(data), hashlib.sha256(data).digest())
        assert each.batch_excerpt.first_bytes == (b"" if place else data[:RECORD_BYTES_MAX]), "nothing of it is lost"
        assert (each.size, each.value_excerpt, each.timestamp) == (None, None, 1_000)
    assert offsets(all_of(chunk_of(data, 11))) == [11, 12]


def test_a_frame_that_cannot_be_unpacked_behind_others_takes_none_of_them_with_it() -> None:
    bodies: list[Body] = [*plain(3 * MEBIBYTE), 5 * MEBIBYTE]
    first = b"".join(chain.from_iterable(record_parts(place, body, []) for place, body in enumerate(bodies)))
    packed = zstandard.compress(first[:-MEBIBYTE]) + _wide_zstd([login()])
    found = all_of(chunk_of(batch_of_packed(ZSTD, packed, len(bodies) + 7)))
    assert offsets(found) == list(range(len(bodies) + 7))
    assert [isinstance(record, LargeRecord) for record in found] == [False] * (len(bodies) - 1) + [True] * 8


@pytest.mark.parametrize(("count", "last_delta"), [(3, 9), (2_000_000, 1_999_999), (-1, -2)])
def test_a_batch_whose_offsets_are_not_known_stops_the_partition_and_says_so(count: int, last_delta: int) -> None:
    data = bytearray(batch_of_packed(SNAPPY, REFUSED["snappy-claims-2-gib"][1], 1, 7))
    data[23:27], data[57:61] = last_delta.to_bytes(4, "big", signed=True), count.to_bytes(4, "big", signed=True)
    with pytest.raises(FatalError, match="offset 7"):
        list(unpack(bytes(data))(0))


@pytest.mark.parametrize("magic", [0, 1])
def test_a_batch_in_a_form_before_kafka_0_11_has_a_bound_as_a_whole(magic: int) -> None:
    def built(*bodies: bytes) -> bytes:
        batch = LegacyRecordBatchBuilder(magic=magic, compression_type=1, batch_size=1 << 30)
        for place, body in enumerate(bodies):
            batch.append(place, timestamp=1_000, key=b"key", value=body)
        data = batch.build()
        data[:8] = (len(bodies) - 1).to_bytes(8, "big")
        return bytes(data)

    small, large = all_of(chunk_of(built(login(), bytes(2 * MEBIBYTE))))
    assert small.value == login()
    assert isinstance(large, LargeRecord)
    assert large.size == 2 * MEBIBYTE + len(b"key")
    it = chunk_of(built(login(), bytes(17 * MEBIBYTE)))
    assert isinstance(it.next, Unreadable)
    assert isinstance(it.next.error, FatalError)
    assert "Kafka 0.11" in str(it.next.error)


# --- corrupt records


def _spoilt(bodies: list[Body], codec: int, spoil: Callable[[bytes], bytes], count: int | None = None) -> Chunk[KafkaRecord]:
    parts = b"".join(chain.from_iterable(record_parts(place, body, list(headers(place))) for place, body in enumerate(bodies)))
    packed = packed_by(codec, [spoil(parts)])
    return chunk_of(batch_of_packed(codec, packed, len(bodies) if count is None else count))


def until_unreadable(it: Chunk[KafkaRecord]) -> tuple[list[int], Exception]:
    found: list[int] = []
    while not isinstance(it.next, Unreadable):
        assert it.next is not None, "it was to be unreadable"
        it.read_next()
        found += offsets(it.take(32))
    return found, it.next.error


SMALL: list[Body] = [login()] * 3
MANY: list[Body] = [*plain(3 * MEBIBYTE), 3 * MEBIBYTE, login()]


@every_codec
@pytest.mark.parametrize("bodies", [SMALL, MANY], ids=["one-piece", "several"])
@pytest.mark.parametrize("kind", ["cut", "more", "fewer", "behind"])
def test_corrupt_records_are_an_error_at_their_place(codec: int, bodies: list[Body], kind: str) -> None:
    match kind:
        case "cut":
            it = _spoilt(bodies, codec, lambda parts: parts[:-20])
        case "more":
            it = _spoilt(bodies, codec, lambda parts: parts, len(bodies) + 1)
        case "fewer":
            it = _spoilt(bodies, codec, lambda parts: parts, len(bodies) - 1)
        case _:
            it = _spoilt(bodies, codec, lambda parts: parts + b"\0")
    found, error = until_unreadable(it)
    assert isinstance(error, CorruptRecordException)
    expected = len(bodies) - (kind in {"cut", "fewer"})
    assert found == list(range(expected))


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, 2**40])
def test_a_forged_length_is_an_error_and_no_memory(length: int) -> None:
    bodies = plain(3 * MEBIBYTE)
    it = _spoilt(bodies, ZSTD, lambda parts: parts + number(length) + b"\0" * 100, len(bodies) + 1)
    tracemalloc.start()
    try:
        _, error = until_unreadable(it)
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
    assert isinstance(error, CorruptRecordException)


@pytest.mark.parametrize("inner", ["key", "value", "headers", "name", "left"])
def test_a_forged_length_within_a_large_record_is_an_error(inner: str) -> None:
    first = b"\0" + number(0) + number(1)
    body = number(2 * MEBIBYTE) + bytes(2 * MEBIBYTE)
    records = {
        "key": number(2**31 - 1) + body,
        "value": number(-1) + number(2**31 - 1) + body,
        "headers": number(-1) + body + number(-5),
        "name": number(-1) + body + number(1) + number(-2),
        "left": number(-1) + body + number(0) + b"more",
    }
    record = first + records[inner]
    found, error = until_unreadable(_spoilt([login(), login()], ZSTD, lambda _: b"".join(
        [*record_parts(0, login(), []), number(len(record)), record]
    )))  # fmt: skip
    assert found == [0]
    assert isinstance(error, CorruptRecordException)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_corrupt_packing_is_an_error_at_its_place(codec: int) -> None:
    chance = Random(codec)  # noqa: S311 - made-up data
    good = packed_by(codec, islice(chain.from_iterable(record_parts(place, login(), []) for place in range(50)), None))
    for _ in range(200):
        spoilt = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        it = chunk_of(batch_of_packed(codec, bytes(spoilt[: chance.choice([None, len(good) // 2])]), 50))  # it ends, however
        while it.next is not None and not isinstance(it.next, Unreadable):
            it.read_next()
            it.take(32)


def test_an_unknown_codec_is_an_error_at_its_place() -> None:
    it = chunk_of(batch_of_packed(5, b"x", 1))
    assert isinstance(it.next, Unreadable)


@pytest.mark.parametrize("start", [100, 101, 105])
def test_a_large_batch_that_compaction_took_the_first_records_from_is_read_once(start: int) -> None:
    """The cleaner leaves the batch's base offset: the position, or the first record that is left, may be behind it."""
    batch = DefaultRecordBatchBuilder(
        magic=2, compression_type=1, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30
    )
    for delta in range(5, 45):
        batch.append(delta, 1_000, b"key", b"%060000d" % delta, [])
    data = bytearray(batch.build())
    data[:8] = (100).to_bytes(8, "big")
    data[23:27] = (44).to_bytes(4, "big")
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    assert offsets(all_of(chunk_of(bytes(data), start))) == list(range(105, 145))


@pytest.mark.parametrize("codec", [0, 1], ids=["none", "gzip"])
def test_records_of_a_form_without_timestamps_have_the_number_that_says_none(codec: int) -> None:
    batch = LegacyRecordBatchBuilder(magic=0, compression_type=codec, batch_size=1 << 20)
    for offset in range(3):
        batch.append(offset, None, b"key", login())
    assert [record.timestamp for record in all_of(chunk_of(bytes(batch.build())))] == [-1] * 3
