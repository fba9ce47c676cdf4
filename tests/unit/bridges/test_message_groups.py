from bridges.message import Message
from bridges.message_groups import MessageGroups


def message(name: str, group: str | None) -> Message:
    return Message(name, f"handle-{name}", b"", group_id=group)


def test_one_message_of_a_group_at_a_time() -> None:
    groups, a1, a2, a3, b1 = MessageGroups(), *(message(name, name[0]) for name in ("a1", "a2", "a3", "b1"))
    assert [groups.admit(one) for one in (a1, a2, b1, a3)] == [True, False, True, False]
    assert groups.advance(a1) is a2
    assert groups.advance(a2) is a3
    assert groups.advance(b1) is None
    assert groups.advance(a3) is None
    assert len(groups) == 0


def test_the_followers_of_a_head_that_is_given_up_are_handed_back_and_the_group_begins_anew() -> None:
    groups, a1, a2, a3 = MessageGroups(), *(message(name, "a") for name in ("a1", "a2", "a3"))
    assert [groups.admit(one) for one in (a1, a2, a3)] == [True, False, False]
    assert groups.give_up(a1) == [a2, a3]
    assert groups.admit(a1)


def test_messages_without_a_group_never_wait() -> None:
    groups, one, two = MessageGroups(), message("1", None), message("2", None)
    assert groups.admit(one)
    assert groups.admit(two)
    assert groups.advance(one) is None
    assert groups.give_up(two) == []
