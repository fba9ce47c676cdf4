from bridges.message import Message
from bridges.receipts import Receipts


def messages(number: int, size: int = 10) -> list[Message]:
    return [Message(f"id-{index}", f"handle-{index}", b"x" * size) for index in range(number)]


def test_what_is_held_is_due_half_way_and_only_once() -> None:
    receipts, held = Receipts(), messages(3)
    receipts.hold(held, now=100.0, visibility_seconds=30)
    assert receipts.next_due_at() == 115.0
    assert receipts.due(114.9) == []
    assert receipts.due(115.0) == held
    assert receipts.due(129.0) == []


def test_what_is_settled_before_is_never_due() -> None:
    receipts, (first, second) = Receipts(), messages(2)
    receipts.hold([first, second], 0.0, 30)
    assert receipts.settle(first)
    assert not receipts.settle(first)
    assert receipts.due(15.0) == [second]


def test_an_extended_message_is_valid_longer_and_due_again() -> None:
    receipts, (one,) = Receipts(), messages(1)
    receipts.hold([one], 0.0, 30)
    receipts.extended(receipts.due(15.0), asked_at=15.0, visibility_seconds=30)
    assert receipts.is_valid(one, 44.9)
    assert not receipts.is_valid(one, 45.0)
    assert receipts.due(29.9) == []
    assert receipts.due(30.0) == [one]


def test_a_failed_extension_is_due_again_when_asked_for_and_the_receipt_expires_all_the_same() -> None:
    receipts, (one,) = Receipts(), messages(1)
    receipts.hold([one], 0.0, 30)
    receipts.extend_later(receipts.due(15.0), at=17.0)
    assert receipts.next_due_at() == 17.0
    assert receipts.due(17.0) == [one]
    assert receipts.is_valid(one, 29.9)
    assert not receipts.is_valid(one, 30.0)
    assert one in receipts, "held until someone lets go of it"


def test_a_message_settled_while_its_extension_was_asked_for_is_not_held_again() -> None:
    receipts, (one,) = Receipts(), messages(1)
    receipts.hold([one], 0.0, 30)
    due = receipts.due(15.0)
    receipts.settle(one)
    receipts.extended(due, 15.0, 30)
    assert one not in receipts
    assert receipts.next_due_at() is None


def test_a_shorter_visibility_that_came_later_is_due_first() -> None:
    receipts, (long, short) = Receipts(), messages(2)
    receipts.hold([long], 0.0, 600)
    receipts.hold([short], 1.0, 10)
    assert receipts.next_due_at() == 6.0
    assert receipts.due(6.0) == [short]


def test_messages_and_bodies_are_counted() -> None:
    receipts, held = Receipts(), messages(4, size=100)
    receipts.hold(held, 0.0, 30)
    assert (len(receipts), receipts.body_bytes) == (4, 400)
    receipts.settle(held[0])
    assert (len(receipts), receipts.body_bytes) == (3, 400), "Kafka may still have what expired here"
    receipts.drop_body(held[0])
    held[1].acknowledged = True
    receipts.settle(held[1])
    assert (len(receipts), receipts.body_bytes) == (2, 200)
    receipts.drop_body(held[2])
    held[2].acknowledged = True
    receipts.settle(held[2])
    assert (len(receipts), receipts.body_bytes) == (1, 100), "a body counts once"
    assert [message.value for message in held] == [b"", b"", b"", b"x" * 100]
    assert receipts.held() == held[3:]


def test_the_same_message_received_twice_is_held_twice() -> None:
    receipts = Receipts()
    first, again = Message("id", "handle-1", b""), Message("id", "handle-2", b"")
    receipts.hold([first], 0.0, 30)
    receipts.hold([again], 31.0, 30)
    assert receipts.settle(first)
    assert again in receipts


def test_what_is_settled_is_not_kept_until_it_would_have_been_due() -> None:
    """Visibility may be twelve hours: what passes through in six is more than any memory."""
    receipts, staying = Receipts(), messages(3)
    receipts.hold(staying, 0.0, 43_200)
    for step in range(1_000):
        passing = messages(10)
        receipts.hold(passing, step / 1_000, 43_200)
        for message in passing:
            receipts.settle(message)
    assert len(receipts._schedule) < 200
    assert receipts.due(21_600.0) == staying
