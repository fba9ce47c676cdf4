import pytest

from bridges.intake import Intake, Receive
from bridges.memory import COPIES, MESSAGE_OVERHEAD_BYTES, answer_bytes, held_bytes

MEBIBYTE = 1_048_576
ROOM = 64 * MEBIBYTE


def asks(intake: Intake, index: int = 0, messages: int = 0, body_bytes: int = 0) -> Receive:
    receive = intake.ask(index, messages, body_bytes)
    assert receive is not None
    return receive


def brings(intake: Intake, messages: int | None, body_bytes: int = 0) -> None:
    intake.answered(asks(intake), messages, body_bytes)


def test_an_idle_queue_is_asked_by_one_receiver() -> None:
    intake = Intake(4, 1_000, ROOM)
    assert [intake.ask(index, 0, 0) is not None for index in range(4)] == [True, False, False, False]


def test_each_receive_that_brings_something_lets_one_more_ask_and_each_empty_one_one_fewer() -> None:
    intake, active = Intake(3, 1_000, ROOM), []
    for brought in (1, 10, 10, 0, 0, 0, None, 5):
        brings(intake, brought)
        active.append(intake.active)
    assert active == [2, 3, 3, 2, 1, 1, 1, 2]


def test_open_requests_count_as_the_most_messages_that_they_may_bring() -> None:
    intake = Intake(4, 35, ROOM)
    intake.active = 4
    assert intake.ask(0, 26, 0) is None
    receive = asks(intake, 0, 25)
    assert intake.ask(1, 16, 0) is None
    assert asks(intake, 1, 15).messages == 10
    intake.answered(receive, None)
    assert asks(intake, 2, 15).messages == 10


def test_who_has_asked_and_got_no_answer_is_counted() -> None:
    intake, asking = Intake(3, 1_000, ROOM), [0]
    intake.active = 3
    receives = [asks(intake, 0), asks(intake, 1)]
    asking.append(intake.asking)
    for receive in receives:
        intake.answered(receive, 0)
        asking.append(intake.asking)
    assert asking == [0, 2, 1, 0]


def test_a_full_memory_stops_the_next_request() -> None:
    intake = Intake(1, 1_000, ROOM)
    body_bytes = (ROOM - answer_bytes(40_960, 10) - held_bytes(10, 0)) // COPIES
    assert intake.ask(0, 10, body_bytes + 1) is None
    assert asks(intake, 0, 10, body_bytes).messages == 10


def test_an_answer_is_read_when_what_it_takes_is_free() -> None:
    intake = Intake(2, 1_000, ROOM)
    intake.active = 2
    one, other = asks(intake, 0), asks(intake, 1)
    assert intake.read(one, 8 * MEBIBYTE, 0, 0)
    assert intake.reading_bytes == answer_bytes(8 * MEBIBYTE, 10)
    assert not intake.read(other, 8 * MEBIBYTE, 0, 0)
    intake.answered(one, 8)
    assert not intake.read(other, 8 * MEBIBYTE, 8, 8 * MEBIBYTE)
    assert intake.read(other, 8 * MEBIBYTE, 8, 7 * MEBIBYTE)


def test_an_answer_that_takes_more_than_there_is_is_read_when_nothing_else_is_there() -> None:
    intake = Intake(2, 1_000, MEBIBYTE)
    intake.active = 2
    one, other = asks(intake, 0), asks(intake, 1)
    assert not intake.read(one, 10 * MEBIBYTE, 1, 1)
    assert intake.read(one, 10 * MEBIBYTE, 0, 0)
    assert not intake.read(other, 1, 0, 0)


def test_nobody_asks_while_an_answer_waits() -> None:
    intake = Intake(2, 1_000, ROOM)
    intake.waiting = 1
    assert intake.ask(0, 0, 0) is None
    intake.waiting = 0
    assert intake.ask(0, 0, 0) is not None


def test_an_answer_that_broke_off_gives_its_memory_back_and_is_expected_again() -> None:
    intake = Intake(1, 1_000, ROOM)
    receive = asks(intake)
    expected = receive.memory_bytes
    intake.broke_off(receive)
    assert intake.read(receive, MEBIBYTE, 0, 0)
    intake.broke_off(receive)
    assert (intake.reading_bytes, receive.memory_bytes) == (0, expected)
    assert intake.read(receive, MEBIBYTE, 0, 0)
    intake.answered(receive, None)
    assert (intake.reading_bytes, intake._expected_bytes, intake._asked_messages) == (0, 0, 0)


def test_fewer_messages_are_asked_for_at_once_after_large_ones_and_all_again_after_a_while() -> None:
    intake, asked = Intake(1, 1_000, ROOM), []
    for length in (*[MEBIBYTE] * 2, *[300] * 30):
        receive = asks(intake)
        asked.append(receive.messages)
        assert intake.read(receive, length * receive.messages, 0, 0)
        intake.answered(receive, receive.messages)
    assert asked[:3] == [10, 6, 6]
    assert asked == [10, *sorted(asked[1:])]
    assert asked[-1] == 10


@pytest.mark.parametrize("length", [0, 5_000_000], ids=["read by boto3", "read by us"])
def test_what_an_answer_brought_is_known_whoever_read_it(length: int) -> None:
    intake = Intake(1, 1_000, ROOM)
    receive = asks(intake)
    assert not length or intake.read(receive, length, 0, 0)
    intake.answered(receive, 5, 5_000_000)
    assert asks(intake).messages == 6


def test_the_largest_messages_are_asked_for_one_by_one_where_memory_is_short() -> None:
    intake = Intake(2, 1_000, MEBIBYTE)
    intake.active = 2
    brings(intake, 1, MEBIBYTE)
    assert asks(intake, 0).messages == 1
    assert intake.ask(1, 0, 0) is None, "not before the first has its answer"


def test_a_message_counts_three_times_and_what_comes_with_it_once() -> None:
    assert held_bytes(2, 1_000) == 3 * 1_000 + 2 * MESSAGE_OVERHEAD_BYTES
    assert all(answer_bytes(length, 10) >= held_bytes(10, length) for length in (0, 1_000, 10 * MEBIBYTE))
