"""Whatever goes wrong, and in whatever order: each message ends as exactly one row or one dead letter."""

import asyncio
from typing import Any

import virtual_time
from hypothesis import given, settings
from hypothesis import strategies as st
from login_records import login
from memory_store import MemoryStore, message_of
from partition_scenes import PARTITION, Scene

from stream_app.positions import Position
from stream_app.windows import WindowPolicy

GOOD, POISON = login(), b"not json"
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
    st.tuples(st.just("another claims"), st.none()),
    st.tuples(st.just("take a snapshot"), st.none()),
    st.tuples(st.just("fail over"), st.none()),
    st.tuples(st.just("rebalance"), st.sampled_from([0.0, 0.05, 5.0])),
    st.tuples(st.just("slow statements"), st.sampled_from([0.0, 0.02, 1.0])),
)


async def play(actions: list[tuple[str, Any]]) -> Scene:  # noqa: C901, PLR0912 - one case an action
    it = Scene(policy=WindowPolicy(rows=8, bytes=1_000_000, seconds=0.2))
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
                if record.value == GOOD and message not in it.store.messages() and message[1] not in refused:
                    it.store.rows[message] = record.offset
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
    it.store.statement_seconds = 0.0
    await it.drain(writer)
    await writer.close(60)
    return it


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=40))
def test_each_message_ends_exactly_once(actions: list[tuple[str, Any]]) -> None:
    it = virtual_time.run(play(actions))
    assert sorted(it.store.messages()) == sorted(set(map(message_of, it.log.records)))
    if not any(action == "another writes" for action, _ in actions):
        assert it.store.surprises == 0, "in one partition it is known what can't be there"
    assert it.budget.bytes_used == 0
    assert it.position == it.log.log_end
