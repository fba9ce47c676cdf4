"""The first record of an answer of Kafka's: which one it is, and when it was sent, whatever it is packed in."""

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.structs import TopicPartition
from login_records import headers, login
from packed_bombs import CODECS, ZSTD, batch_of_packed, bomb
from record_batches import aborted, packed

from pipeline.contract import RECORD_BYTES_MAX
from stream_app.transport.first_records import FirstRecord, first_record

PLACE = TopicPartition("logins", 0)


def first(answer: bytes, offset: int = 0, isolation_level: int = READ_COMMITTED) -> tuple[FirstRecord | None, int]:
    return first_record(PLACE, answer, [(7, 0)], isolation_level, offset)


def test_it_is_the_one_at_the_offset() -> None:
    record, next_offset = first(packed([login(), login()]) + packed([login()], 2), offset=1)
    assert record is not None
    assert (record.timestamp, list(record.headers), next_offset) == (1_001, list(headers(1)), 3)


def test_what_was_taken_back_and_control_records_do_not_count() -> None:
    taken_back = packed([login()], producer=7) + aborted(7, 1)
    assert first(taken_back) == (None, 2)
    record, next_offset = first(taken_back + packed([login()], 2))
    assert (record is not None and list(record.headers), next_offset) == (list(headers(2)), 3)
    record, _ = first(taken_back, isolation_level=READ_UNCOMMITTED)
    assert record is not None
    assert list(record.headers) == list(headers(0))


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_one_too_large_to_be_held_has_its_timestamp(codec: int) -> None:
    record, next_offset = first(bomb(codec, [RECORD_BYTES_MAX + 1, 10]))
    assert (record is not None and record.timestamp, next_offset) == (1_000, 2)


@pytest.mark.parametrize("place", [0, 1])
def test_one_that_cannot_be_unpacked_is_as_old_as_its_batch(place: int) -> None:
    record, next_offset = first(batch_of_packed(ZSTD, b"no zstd", 2), place)
    assert (record is not None and record.timestamp, next_offset) == (2_000, 2)
    assert record is not None
    assert not record.headers


def test_of_less_than_one_batch_there_is_nothing() -> None:
    assert first(packed([login()])[:-1]) == (None, 0)
