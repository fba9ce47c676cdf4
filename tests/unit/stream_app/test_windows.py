from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from stream_app.chunk import CHUNK_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES, Chunk, Piece, Unread, Unreadable
from stream_app.windows import SLICE_BYTES, SLICE_RECORDS, STEP_RECORDS, Trigger, Window, WindowPolicy

PLENTY = 1 << 40


@dataclass
class Record:
    value: bytes | None
    offset: int = 0
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def records(count: int, size: int = 0, first: int = 0) -> list[Record]:
    return [Record(b"x" * size, offset) for offset in range(first, first + count)]


def piece(found: list[Record]) -> Piece[Record]:
    return Piece(iter(found), len(found), sum(len(one.value or b"") for one in found))


def chunk(found: list[Record], next_offset: int | None = None) -> Chunk[Record]:
    return Chunk(
        found[0],
        lambda start: iter([piece([one for one in found if one.offset >= start])]),
        next_offset=next_offset or found[-1].offset + 1,
        packed_bytes=100 * len(found),
        seek_number=0,
        sequence=0,
    )


def window(rows: int = 10, bytes_max: int = 1_000_000, seconds: float = 2.0) -> Window[Record]:
    return Window(WindowPolicy(rows=rows, bytes=bytes_max, seconds=seconds))


def take(it: Window[Record], now: float = 0.0, bytes_max: int = PLENTY) -> list[int]:
    return [record.offset for taken, _ in it.slices(now, bytes_max, []) for record in taken]


def test_an_empty_window_is_never_due() -> None:
    assert window().due(1e9) is None
    assert window().seconds_until_due(1e9) is None
    assert take(window()) == []


def test_it_closes_by_rows_and_leaves_what_is_over() -> None:
    it = window(rows=10)
    it.add(chunk(records(7)), now=0)
    it.add(chunk(records(18, first=7)), now=0)
    assert it.due(0) is Trigger.ROWS
    assert take(it) == list(range(10))
    assert take(it) == list(range(10, 20))
    assert it.due(0) is None
    assert (it.rows, it.oldest and it.oldest.offset) == (5, 20)


def test_it_closes_by_seconds_since_its_first_record() -> None:
    it = window(seconds=2.0)
    it.add(chunk(records(1)), now=100.0)
    it.add(chunk(records(1, first=1)), now=101.9)
    assert it.due(101.99) is None
    assert it.seconds_until_due(101.5) == pytest.approx(0.5)
    assert it.due(102.0) is Trigger.SECONDS


def test_what_is_over_opens_the_next_window_when_it_is_left() -> None:
    it = window(rows=1, seconds=2.0)
    it.add(chunk(records(2)), now=0.0)
    take(it, now=1.5)
    assert it.seconds_until_due(1.5) == pytest.approx(2.0)


def test_no_more_is_taken_than_fits_and_the_rest_is_due_at_once() -> None:
    each = 1_000 + RECORD_OVERHEAD_BYTES
    it = window(rows=100, bytes_max=3 * each)
    it.add(chunk(records(7, 1_000)), now=0)
    assert take(it, now=1.0) == [0, 1, 2]
    assert it.due(1.0) is Trigger.BYTES
    assert take(it, bytes_max=2 * each) == [3, 4], "the bound that is less"
    assert take(it) == [5, 6]
    assert (it.due(9e9), it.oldest) == (None, None)


def test_packed_bytes_close_it_too() -> None:
    it = window(rows=1_000, bytes_max=10_000)
    it.add(chunk(records(70)), now=0)
    assert it.due(0) is Trigger.BYTES


def test_a_record_larger_than_the_bound_goes_alone() -> None:
    it = window(bytes_max=2_000)
    it.add(chunk(records(2, 5_000)), now=0)
    assert take(it) == [0]
    assert take(it) == [1]
    assert it.bytes == 0


def test_large_records_behind_a_small_one_are_not_all_unpacked_at_once() -> None:
    large = 1_000_000
    it = window(rows=1_000, bytes_max=3 * large)
    it.add(chunk([Record(b""), *records(200, large, first=1)]), now=0)
    assert len(take(it)) <= STEP_RECORDS


def test_a_slice_is_bounded_and_says_what_it_holds() -> None:
    it = window(rows=10_000, bytes_max=PLENTY)
    count = SLICE_RECORDS + 7
    it.add(chunk(records(count, 3)), now=0)
    slices = [(len(taken), size) for taken, size in it.slices(0, PLENTY, [])]
    assert slices == [(rows, rows * (3 + RECORD_OVERHEAD_BYTES)) for rows in (SLICE_RECORDS, 7)]


def test_the_chunks_that_records_came_from_are_told_once_each() -> None:
    it = window(rows=5)
    chunks = [chunk(records(2, first=first)) for first in (0, 2, 4)]
    for each in chunks:
        it.add(each, now=0)
    for expected in (chunks, chunks[2:]):
        origins: list[Chunk[Record]] = []
        assert list(it.slices(0, PLENTY, origins))
        assert origins == expected


def test_what_waits_is_counted_until_it_is_taken_or_cleared() -> None:
    it = window(rows=6)
    it.add(chunk(records(10)), now=0)
    before = it.bytes
    take(it)
    assert 0 < it.bytes < before
    take(it)
    assert (it.rows, it.bytes) == (0, 0)
    it.add(chunk(records(3, 7)), now=0)
    it.clear()
    assert (it.rows, it.bytes, it.oldest, it.due_at, take(it)) == (0, 0, None, None, [])


def test_offsets_without_a_record_are_counted_when_their_chunk_is_through() -> None:
    it = window(rows=2)
    it.add(chunk([*records(2), *records(1, first=5)], next_offset=8), now=0)
    assert it.rows == 8, "as many at most"
    take(it)
    assert it.offsets_without_record == 0, "not known yet"
    take(it)
    assert (it.offsets_without_record, it.rows) == (5, 0)


def test_an_original_is_unpacked_once_more() -> None:
    unpacked = 0

    def unpack(start: int) -> Iterator[Piece[Record]]:
        nonlocal unpacked
        unpacked += 1
        return iter([piece(records(10 - start, first=start))])

    it = Chunk(Record(b""), unpack, next_offset=10, packed_bytes=1, seek_number=0, sequence=0)
    assert [it.original(offset).offset for offset in (2, 3, 9)] == [2, 3, 9]
    assert unpacked == 1, "in ascending order the chunk is gone through once"
    assert it.original(3).offset == 3
    assert unpacked == 2


def broken_chunk(readable: int, first: int = 0) -> Chunk[Record]:
    """So many records, then one that can't be unpacked, and others behind it."""

    def unpack(start: int) -> Iterator[Piece[Record]]:
        yield piece(records(first + readable - start, first=start))
        raise ValueError("no record begins here")

    return Chunk(Record(b"", first), unpack, next_offset=first + readable + 5, packed_bytes=1, seek_number=0, sequence=0)


def test_what_cannot_be_unpacked_stays_and_all_before_it_comes() -> None:
    it = window(rows=1_000)
    it.add(chunk(records(7)), now=0)
    it.add(broken_chunk(40, first=7), now=0)
    it.add(chunk(records(5, first=52)), now=0)
    assert it.unreadable is None
    assert take(it) == list(range(47))
    assert str(it.unreadable) == "no record begins here"
    assert (it.rows, it.oldest, it.due(0)) == (10, None, Trigger.BYTES)
    assert take(it) == []
    it.clear()
    assert it.unreadable is None


def test_a_chunk_of_which_nothing_can_be_unpacked_opens_a_window_without_an_oldest_record() -> None:
    it = window(seconds=2.0)
    error = ValueError("no record begins here")
    nothing: Chunk[Record] = Chunk(
        Unreadable(3, error), lambda _: iter(()), next_offset=9, packed_bytes=1, seek_number=0, sequence=0
    )
    it.add(nothing, now=0)
    assert (it.rows, it.oldest, it.unreadable, it.due(1.9), it.due(2)) == (6, None, error, None, Trigger.SECONDS)
    assert take(it) == []


def test_the_record_that_is_unpacked_ahead_counts_with_its_body() -> None:
    it = window(rows=1_000, bytes_max=10_000_000)
    for offset in range(10):
        it.add(chunk(records(1, size=1_000_000, first=offset)), now=0)
    assert it.bytes == 10 * (1_000_000 + CHUNK_OVERHEAD_BYTES + 100)
    assert it.due(0) is Trigger.BYTES


def unread_chunk(read: Callable[[Callable[[], None]], list[Record]]) -> Chunk[Record]:
    """Two records, one that takes long to go through, two more."""

    def unpack(start: int) -> Iterator[Piece[Record] | Unread[Record]]:
        yield piece(records(2 - start, first=start))
        yield Unread(2, 1_000, read)
        yield piece(records(2, first=3))

    return Chunk(Record(b"", 0), unpack, next_offset=5, packed_bytes=1, seek_number=0, sequence=0)


def test_what_takes_long_to_go_through_stays_until_that_is_done() -> None:
    it = window()
    waiting = unread_chunk(lambda _: [Record(b"read", 2)])
    it.add(waiting, now=0)
    assert take(it) == [0, 1]
    assert it.unread is waiting
    assert (it.rows, it.oldest and it.oldest.offset, it.due(0)) == (3, 2, Trigger.BYTES)
    assert take(it) == []
    rows, held = waiting.rows, waiting.bytes
    waiting.read_next()
    assert it.has_read(waiting, rows, held) == waiting.bytes - held == len(b"read")
    assert it.bytes == waiting.bytes
    assert take(it) == [2, 3, 4]
    assert (it.rows, it.bytes) == (0, 0)


def test_what_was_dropped_while_it_was_gone_through_counts_no_more() -> None:
    it, waiting = window(), unread_chunk(lambda _: [Record(b"read", 2)])
    it.add(waiting, now=0)
    take(it)
    rows, held = waiting.rows, waiting.bytes
    it.clear()
    waiting.read_next()
    assert (it.has_read(waiting, rows, held), it.rows, it.bytes) == (0, 0, 0)


def test_what_cannot_be_gone_through_cannot_be_unpacked() -> None:
    def broken(_: Callable[[], None]) -> list[Record]:
        raise ValueError("no record ends here")

    it, waiting = window(), unread_chunk(broken)
    it.add(waiting, now=0)
    take(it)
    waiting.read_next()
    assert (it.unread, str(it.unreadable)) == (None, "no record ends here")


def test_records_of_one_slice_are_bounded_by_what_kafka_says_they_take() -> None:
    """Their headers count there, and are not looked at one by one."""
    found = records(100)
    bomb = Chunk(
        found[0],
        lambda start: iter([Piece(iter(found[start : start + 2]), 2, SLICE_BYTES)] if start < 98 else []),
        next_offset=100, packed_bytes=1, seek_number=0, sequence=0,
    )  # fmt: skip
    it = window(rows=100, bytes_max=10 * SLICE_BYTES)
    it.add(bomb, now=0)
    assert [len(taken) for taken, _ in it.slices(0, PLENTY, [])] == [2]
