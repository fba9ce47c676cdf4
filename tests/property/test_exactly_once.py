"""Whatever goes wrong, and in whatever order: each message ends as exactly one row or one dead letter."""

import asyncio
from dataclasses import replace
from typing import Any

import virtual_time
from hypothesis import given, settings
from hypothesis import strategies as st
from login_records import login
from memory_store import MemoryStore, Message, message_of
from partition_scenes import PARTITION, Scene

from stream_app.positions import Position
from stream_app.replays import HEADER_REPLAY, Content, ReplayMark
from stream_app.windows import WindowPolicy

GOOD, POISON, KEY = login(), b"not json", b"what marks verify with"
ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 15)),
    st.tuples(st.just("append poison"), st.integers(1, 3)),
    st.tuples(st.just("append again"), st.integers(0, 60)),
    st.tuples(st.just("deliver"), st.integers(1, 20)),
    st.tuples(st.just("drop a chunk"), st.integers(1, 10)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.25, 3.0, 20.0])),
    st.tuples(st.just("faults"), st.lists(st.sampled_from(["before", "after", "none"]), min_size=1, max_size=6)),
    st.tuples(st.just("refuse a row"), st.integers(0, 60)),
    st.tuples(st.just("refuse by an index of the owner's"), st.integers(0, 60)),
    st.tuples(st.just("another writes"), st.integers(0, 60)),
    st.tuples(st.just("refuse every row"), st.none()),
    st.tuples(st.just("mend the table"), st.none()),
    st.tuples(st.just("replay"), st.integers(0, 60)),
    st.tuples(st.just("another claims"), st.none()),
    st.tuples(st.just("take a snapshot"), st.none()),
    st.tuples(st.just("fail over"), st.none()),
    st.tuples(st.just("rebalance"), st.sampled_from([0.0, 0.05, 5.0])),
    st.tuples(st.just("slow statements"), st.sampled_from([0.0, 0.02, 1.0])),
)


ACTIONS_ON_REFUSED = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 7)),
    st.tuples(st.just("refuse a row"), st.integers(10, 60)),
    st.tuples(st.just("refuse every row"), st.none()),
    st.tuples(st.just("mend the table"), st.none()),
    st.tuples(st.just("replay"), st.integers(0, 3)),
    st.tuples(st.just("deliver and wait"), st.sampled_from([0.0, 0.3, 0.6, 1.3, 20.0])),
    st.tuples(st.just("another writes"), st.integers(0, 3)),
    st.tuples(st.just("slow statements"), st.sampled_from([0.0, 0.5])),
    st.tuples(st.just("faults"), st.lists(st.sampled_from(["before", "after", "none"]), min_size=1, max_size=6)),
    st.tuples(st.just("rebalance"), st.sampled_from([0.0, 5.0])),
)


def mend(store: MemoryStore) -> None:
    """The table takes each row from here on."""
    store.refuses_all = False
    store.refused_message_ids.clear()
    store.not_unique_message_ids.clear()


def is_replay_under_way(store: MemoryStore, message: Message) -> bool:
    return message in store.replays and store.replays[message][1] is None and message not in store.rows


def replay(it: Scene, which: int) -> None:
    """As `dead-letters replay` does with one of the dead letters that are open."""
    open_ones = [message for message in it.store.dead_letters if it.store.replays.get(message, (0, None))[1] != "row"]
    if not open_ones:
        return
    message = open_ones[which % len(open_ones)]
    record = next(record for record in it.log.records if message_of(record) == message)
    mark = ReplayMark(message[1], int(message[0]), record.timestamp, it.store.begin_replay(message))
    signed = mark.signed(KEY, Content(PARTITION.topic, record.key, record.value, record.headers))
    it.log.records.append(replace(record, offset=it.log.log_end, headers=((HEADER_REPLAY, signed), *record.headers)))


async def play(actions: list[tuple[str, Any]]) -> Scene:  # noqa: C901, PLR0912, PLR0915 - one case an action
    it = Scene(policy=WindowPolicy(rows=8, bytes=1_000_000, seconds=0.2), refused_rows_max=5)
    it.store.key_of_replays = KEY
    it.log.append(GOOD, GOOD, GOOD)
    snapshot: MemoryStore | None = None
    writer = it.open()
    for action, how in actions:
        match action:
            case "append":
                it.log.append(*[GOOD] * how)
            case "append poison":
                it.log.append(*[POISON] * how)
            case "append again":
                it.log.append_again(how % len(it.log.records))
            case "deliver":
                it.log.deliver(writer, how)
            case "deliver and wait":
                it.log.deliver(writer, 20)
                await asyncio.sleep(how)
            case "drop a chunk":
                it.log.fetch(how)
            case "wait":
                await asyncio.sleep(how)
            case "faults":
                it.store.faults.extend(how)
            case "refuse a row" | "refuse by an index of the owner's":
                refused = it.store.refused_message_ids if action == "refuse a row" else it.store.not_unique_message_ids
                if how < len(it.log.records) and (message := message_of(it.log.records[how])) not in it.store.messages():
                    refused.add(message[1])
            case "another writes":  # through another partition, or another pipeline
                record = it.log.records[-1 - how % len(it.log.records)]
                message = message_of(record)
                refused = it.store.refused_message_ids | it.store.not_unique_message_ids
                known = message in it.store.messages() and not is_replay_under_way(it.store, message)
                if record.value == GOOD and not known and message[1] not in refused and not it.store.refuses_all:
                    it.store.rows.setdefault(message, record.offset)
            case "refuse every row":
                it.store.refuses_all = True
            case "mend the table":
                mend(it.store)
            case "replay":
                replay(it, how)
            case "another claims":
                stored = it.store.positions.get(PARTITION)
                if stored is not None:
                    it.store.positions[PARTITION] = Position(stored.next_offset, stored.epoch + 1)
            case "take a snapshot":
                snapshot = it.store.snapshot()
            case "fail over":
                if snapshot is not None:
                    it.store.failed_over(snapshot)
            case "rebalance":
                await writer.close(how)
                writer = it.open()
            case "slow statements":
                it.store.statement_seconds = how
    it.store.faults.clear()
    it.store.refuses_all = False
    it.store.statement_seconds = 0.0
    await it.drain(writer)
    await writer.close(60)
    return it


def check(actions: list[tuple[str, Any]]) -> None:
    it = virtual_time.run(play(actions))
    store = it.store
    came_back = store.rows.keys() & store.dead_letters.keys()
    assert sorted([*store.rows, *(store.dead_letters.keys() - came_back)]) == sorted(set(map(message_of, it.log.records)))
    if not any(action == "fail over" for action, _ in actions):  # which takes back that a replay was begun
        assert {message for message, (_, ended) in store.replays.items() if ended == "row"} == came_back
        assert all(ended is not None for _, ended in store.replays.values())
    if not any(action == "another writes" for action, _ in actions):
        assert it.store.surprises == 0, "in one partition it is known what can't be there"
    assert it.budget.bytes_used == 0
    assert it.position == it.log.log_end


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_each_message_ends_exactly_once(actions: list[tuple[str, Any]]) -> None:
    check(actions)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS_ON_REFUSED, max_size=30))
def test_what_is_refused_and_replayed_ends_exactly_once(actions: list[tuple[str, Any]]) -> None:
    check(
        [("append", 10), ("refuse a row", 1), ("append poison", 1), ("refuse a row", 4), ("deliver", 20), ("wait", 20.0), *actions]
    )
