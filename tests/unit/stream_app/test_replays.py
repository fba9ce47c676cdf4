"""Replayed records: judged as they were, known by their mark, and nobody gains by a mark that he made up."""

from dataclasses import replace
from typing import Any

import pytest
from login_records import PLACE, SENT_AT_BOUNDS, SENT_AT_MS, batch_of, builder, headers, login, opened, record

from stream_app.large_records import Excerpt, LargeRecord
from stream_app.message_headers import fallback_message_id, read_headers
from stream_app.reasons import Reason
from stream_app.refusals import Refusal
from stream_app.replays import HEADER_REPLAY, Content, ReplayMark, read_mark

KEY = b"k" * 32
DAYS_40_MS = 40 * 86_400_000
LETTER_ID = "00000000-0000-4000-8000-000000000001"
HEADERS = headers(0)
MARK = ReplayMark(LETTER_ID, SENT_AT_MS + 5, SENT_AT_MS, 2)


def replayed(
    body: bytes | None = login(), *, mark: ReplayMark = MARK, given: Any = HEADERS, key: bytes = KEY, offset: int = 7
) -> Any:
    """A record as the command sends it, 40 days after it first came."""
    signed = mark.signed(key, Content(PLACE.topic, b"key", body, given))
    return record(body, offset, headers_=((HEADER_REPLAY, signed), *given), timestamp=SENT_AT_MS + DAYS_40_MS)


def test_a_mark_is_read_as_it_was_made() -> None:
    assert read_mark(KEY, PLACE.topic, replayed()) == MARK
    assert read_mark(KEY, PLACE.topic, replayed(None, mark=replace(MARK, timestamp=-1))) == replace(MARK, timestamp=-1)


@pytest.mark.parametrize(
    "changed",
    [
        {"value": login(locale="xx")},
        {"key": b"other"},
        {"key": None},
        {"headers": (*replayed().headers, ("more", b""))},
        {"headers": replayed().headers[:-1]},
        {"headers": ((HEADER_REPLAY, replayed().headers[0][1].replace(b" 2 ", b" 3 ")), *headers(0))},
        {"headers": ((HEADER_REPLAY, b""), *headers(0))},
        {"headers": ((HEADER_REPLAY, None), *headers(0))},
        {"headers": (headers(0)[0], *replayed().headers)},
        {"headers": ()},
    ],
)
def test_a_mark_of_another_record_is_none(changed: dict[str, Any]) -> None:
    assert read_mark(KEY, PLACE.topic, replace(replayed(), **changed)) is None


def test_a_mark_of_another_topic_or_key_is_none() -> None:
    assert read_mark(KEY, "other", replayed()) is None
    assert read_mark(b"x" * 32, PLACE.topic, replayed()) is None


def test_a_replayed_record_is_judged_by_the_time_when_it_first_came() -> None:
    read = read_headers(PLACE, [replayed()], SENT_AT_BOUNDS, KEY)
    assert (read.sent_at_ms, read.problems, read.replays) == ([str(SENT_AT_MS)], {}, {0: MARK})


@pytest.mark.parametrize("key", [None, b"x" * 32])
def test_without_a_valid_mark_it_is_judged_by_when_it_came_now(key: bytes | None) -> None:
    read = read_headers(PLACE, [replayed()], SENT_AT_BOUNDS, key)
    assert read.problems[0].reason == Reason.SENT_AT_IMPLAUSIBLE
    assert not read.replays


def test_a_record_without_headers_keeps_what_stood_in_for_them() -> None:
    first = batch_of([record(b"not json", 3, headers_=(), timestamp=SENT_AT_MS)], 3, 4).dead_letters[0]
    assert first.message_id == fallback_message_id(PLACE, 3)
    mark = ReplayMark(first.message_id, first.sent_at_ms, SENT_AT_MS, 1)
    read = read_headers(PLACE, [replayed(b"not json", mark=mark, given=())], SENT_AT_BOUNDS, KEY)
    assert (read.message_ids, read.sent_at_ms) == ([first.message_id], [str(first.sent_at_ms)])


def marked_builder() -> Any:
    made = builder()
    made.replay_key = KEY
    return made


def test_what_fails_again_is_the_dead_letter_that_it_was() -> None:
    """Also where the rules of now would give it another sent at, and so another line in the table."""
    batch = batch_of([replayed(b"not json")], 7, 8, by=marked_builder())
    (letter,) = batch.dead_letters
    assert (letter.message_id, letter.sent_at_ms, letter.reason) == (LETTER_ID, SENT_AT_MS + 5, Reason.NOT_JSON)
    assert opened(letter).value == b"not json"
    assert batch.replay_outcomes() == [(7, MARK, letter)]


def test_what_postgres_refuses_is_the_dead_letter_that_it_was() -> None:
    made = marked_builder()
    refused = made.refuse_row(batch_of([replayed()], 7, 8, by=made), Refusal(column="locale"))
    ((_, mark, letter),) = refused.replay_outcomes()
    assert (mark, letter.message_id, letter.sent_at_ms, letter.reason) == (MARK, LETTER_ID, SENT_AT_MS + 5, Reason.ROW_REFUSED)


def test_refused_replays_are_told_also_with_the_statement_behind_them() -> None:
    made = marked_builder()
    refused = made.refuse_row(batch_of([replayed()], 7, 8, by=made), Refusal(column="locale"))
    together = batch_of([replayed(offset=8), record(login(), 9)], 8, 10, by=made).behind(refused)
    assert [(offset, letter is None) for offset, _, letter in together.replay_outcomes()] == [(7, False), (8, True)]


def test_marks_go_with_their_records_when_a_batch_is_halved() -> None:
    found = [record(login(), 6), replayed(offset=7), record(login(), 8), record(login(), 9)]
    first, second = batch_of(found, 6, 10, by=marked_builder()).split()
    assert (first.replay_outcomes(), second.replay_outcomes()) == ([(7, MARK, None)], [])


def test_how_late_a_replay_is_says_nothing_of_the_stream() -> None:
    made = marked_builder()
    late, fresh = SENT_AT_MS, SENT_AT_MS + 8
    batch = batch_of([replayed(), record(login(), 8)], 7, 9, by=made)
    assert list(batch.sent_at_ms) == [late, fresh]
    assert list(batch.first_sent_at_ms) == [fresh]
    assert batch.oldest_sent_at_ms == fresh
    assert made.sent_at_ms(PLACE, replayed()) == SENT_AT_MS + DAYS_40_MS
    assert batch_of([replayed(b"not json")], 7, 8, by=made).oldest_sent_at_ms is None


def test_a_record_that_is_too_large_to_be_held_has_no_mark() -> None:
    """Its key and value are not there, so that a mark of a record without any would fit."""
    forged = replayed(None)
    large = LargeRecord(offset=7, timestamp=0, value_excerpt=Excerpt.of([b"x"]), headers=forged.headers)
    assert not read_headers(PLACE, [large], SENT_AT_BOUNDS, KEY).replays
