from dataclasses import dataclass

import pytest

from stream_app.windows import RECORD_OVERHEAD_BYTES, Trigger, Window, WindowPolicy, memory_bytes


@dataclass
class Record:
    value: bytes | None
    number: int = 0
    key: bytes | None = None


def records(count: int, size: int = 0) -> list[Record]:
    return [Record(b"x" * size, number) for number in range(count)]


def add(it: Window[Record], added: list[Record], now: float) -> int:
    held = memory_bytes(added)
    it.add(added, held, now)
    return held


def window(rows: int = 10, bytes_max: int = 1_000_000, seconds: float = 2.0) -> Window[Record]:
    return Window(WindowPolicy(rows=rows, bytes=bytes_max, seconds=seconds))


def test_an_empty_window_is_never_due() -> None:
    assert window().due(1e9) is None
    assert window().seconds_until_due(1e9) is None


def test_it_closes_by_rows_and_leaves_what_is_over() -> None:
    it = window(rows=10)
    add(it, records(25), now=0)
    assert it.due(0) is Trigger.ROWS
    assert [r.number for r in it.take(0)] == list(range(10))
    assert [r.number for r in it.take(0)] == list(range(10, 20))
    assert it.due(0) is None
    assert (it.rows, it.oldest and it.oldest.number) == (5, 20)


def test_it_closes_by_seconds_since_its_first_record() -> None:
    it = window(seconds=2.0)
    add(it, records(1), now=100.0)
    add(it, records(1), now=101.9)
    assert it.due(101.99) is None
    assert it.seconds_until_due(101.5) == pytest.approx(0.5)
    assert it.due(102.0) is Trigger.SECONDS


def test_what_is_over_opens_the_next_window_when_it_is_left() -> None:
    it = window(rows=1, seconds=2.0)
    add(it, records(2), now=0.0)
    it.take(1.5)
    assert it.seconds_until_due(1.5) == pytest.approx(2.0)


def test_it_closes_by_bytes_and_takes_no_more_than_fit() -> None:
    each = 1_000 + RECORD_OVERHEAD_BYTES
    it = window(rows=100, bytes_max=3 * each)
    add(it, records(7, 1_000), now=0)
    assert it.due(0) is Trigger.BYTES
    assert len(it.take(0)) == 3
    assert it.bytes == 4 * each


def test_a_record_larger_than_the_bound_goes_alone() -> None:
    it = window(bytes_max=2_000)
    add(it, records(2, 5_000), now=0)
    assert len(it.take(0)) == 1
    assert len(it.take(0)) == 1
    assert it.bytes == 0


def test_bytes_return_to_zero_when_all_is_taken_or_cleared() -> None:
    it = window()
    held = add(it, [Record(None), *records(3, 7)], now=0)
    assert it.clear() == held
    assert (it.rows, it.bytes, it.oldest) == (0, 0, None)
    add(it, records(3, 7), now=0)
    it.take(0)
    assert it.bytes == 0
