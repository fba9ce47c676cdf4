"""Receipts and message groups against models that are too simple to be wrong."""

from itertools import chain, repeat

from hypothesis import given
from hypothesis import strategies as st

from bridges.message import Message
from bridges.message_groups import MessageGroups
from bridges.receipts import EXTEND_AT, Receipts

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(1, 10), st.sampled_from([2.0, 30.0, 600.0])),
        st.tuples(st.just("settle"), st.integers(0, 50), st.none()),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 14.0, 16.0]), st.none()),
        st.tuples(st.just("extend"), st.booleans(), st.sampled_from([2.0, 30.0])),
    ),
    max_size=60,
)


@given(STEPS)
def test_every_held_message_is_due_once_its_half_time_has_passed(steps: list[tuple[str, float, float | None]]) -> None:
    """The model: for each message its expiry and when it is to be extended next."""
    receipts, now = Receipts(), 0.0
    expires: dict[Message, float] = {}
    extend_at: dict[Message, float] = {}
    for step, value, seconds in steps:
        if step == "hold":
            messages = [Message("", "", b"xy") for _ in range(int(value))]
            receipts.hold(messages, now, seconds or 0)
            for message in messages:
                expires[message], extend_at[message] = now + (seconds or 0), now + (seconds or 0) * EXTEND_AT
        elif step == "settle" and expires:
            message = list(expires)[int(value) % len(expires)]
            assert receipts.settle(message)
            del expires[message], extend_at[message]
        elif step == "wait":
            now += value
        elif step == "extend":
            due = receipts.due(now)
            assert sorted(map(id, due)) == sorted(id(message) for message, at in extend_at.items() if at <= now)
            if value:
                receipts.extended(due, now, seconds or 0)
                expires |= dict.fromkeys(due, now + (seconds or 0))
                extend_at |= dict.fromkeys(due, now + (seconds or 0) * EXTEND_AT)
            else:
                receipts.extend_later(due, now + 1)
                extend_at |= dict.fromkeys(due, now + 1)
        assert len(receipts) == len(expires)
        assert all(receipts.is_valid(message, now) == (at > now) for message, at in expires.items())
        next_due = receipts.next_due_at()
        assert next_due is None or not extend_at or next_due <= min(extend_at.values())
        assert next_due is not None or not extend_at


@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.integers(0, 999), max_size=90))
def test_a_message_is_produced_only_when_all_before_it_in_its_group_are_done_with(groups_of: list[str], choices: list[int]) -> None:
    """Heads are acknowledged or given up in any order; what was given up comes back, with all that was behind it."""
    drawn = chain(choices, repeat(1))  # in the end all is admitted, then acknowledged
    groups = MessageGroups()
    waiting = [Message(str(index), "", b"", group_id=group) for index, group in enumerate(groups_of)]
    heads: list[Message] = []
    acknowledged: dict[str | None, list[int]] = {group: [] for group in "abc"}
    while waiting or heads:
        choice = next(drawn)
        if waiting and (not heads or choice % 2):
            message = waiting.pop(0)
            if groups.admit(message):
                heads.append(message)
            continue
        head = heads.pop(choice // 2 % len(heads))
        if choice % 8 == 0:
            again = [head, *groups.give_up(head)]
            behind = [message for message in waiting if message.group_id == head.group_id]
            others = [message for message in waiting if message.group_id != head.group_id]
            waiting = [*others, *again, *behind]
            continue
        acknowledged[head.group_id].append(int(head.message_id))
        following = groups.advance(head)
        if following is not None:
            heads.append(following)
    assert all(numbers == sorted(numbers) for numbers in acknowledged.values())
    assert sum(map(len, acknowledged.values())) == len(groups_of)
    assert len(groups) == 0
