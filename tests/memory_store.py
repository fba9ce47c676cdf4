"""Postgres as a partition writer sees it, in memory, with faults on demand; test_batch_writer.py proves the two equal."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from pipeline.errors import RetryableError
from stream_app.batch import Batch
from stream_app.dead_letters import DeadLetter, KafkaRecord
from stream_app.login_record import FIELDS
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.postgres.errors import NotUniqueError, RowRefusedError
from stream_app.postgres.table_check import TableCheck
from stream_app.refusals import Refusal
from stream_app.replays import ReplayMark

Fault = Literal["before", "after", "none"]
"""The connection breaks before the statement is carried out, after it, or not."""


Message: TypeAlias = tuple[str, str]
"""Sent at in milliseconds, and message id."""


def message_of(record: KafkaRecord) -> Message:
    """The message that a record with the bridge's headers is of."""
    headers = dict(record.headers)
    return (headers["sent-at"] or b"").decode(), (headers["message-id"] or b"").decode()


@dataclass
class MemoryStore:
    rows: dict[Message, int] = field(default_factory=dict)
    """Offsets."""
    contents: dict[Message, tuple[str, ...]] = field(default_factory=dict)
    """What each row holds."""
    dead_letters: dict[Message, int] = field(default_factory=dict)
    settled: list[tuple[int, int, str | None]] = field(default_factory=list)
    """Of replayed records: offset, attempt, and the reason if it is a dead letter again."""
    replays: dict[Message, tuple[int, str | None]] = field(default_factory=dict)
    """Of dead letters: how many replays were begun, and what the last one became."""
    key_of_replays: bytes | None = None
    positions: dict[Partition, Position] = field(default_factory=dict)
    topic_ids: dict[Partition, str | None] = field(default_factory=dict)
    refused_message_ids: set[str] = field(default_factory=set)
    table_check: TableCheck = field(default_factory=TableCheck)
    refusal: Refusal = field(default_factory=lambda: Refusal("23514", table="user_logins", constraint="made_up"))
    """What is named of a refused row."""
    refuses_all: bool = False
    """The table takes no row."""
    writes: int = 0
    """How many it was given."""
    not_unique_message_ids: set[str] = field(default_factory=set)
    """Refused by a unique index of the table's owner."""
    faults: deque[Fault] = field(default_factory=deque)
    """What happens to the next statements, in order; nothing when it is empty."""
    statement_seconds: float = 0.0
    surprises: int = 0
    """How often a message was there that was not looked for."""

    async def check_tables(self) -> TableCheck:
        with _Statement(await self._next_fault()):
            return self.table_check

    async def position(self, partition: Partition) -> Position | None:
        with _Statement(await self._next_fault()):
            return self.positions.get(partition)

    async def claim(self, partition: Partition, start: int, topic_id: str | None) -> tuple[Claim, int]:
        with _Statement(await self._next_fault()):
            stored = self.positions.get(partition, Position(start, 0))
            self.positions[partition] = replace(stored, epoch=stored.epoch + 1)
            self.topic_ids[partition] = self.topic_ids.get(partition) or topic_id
            return Claim(partition, stored.epoch + 1, self.topic_ids[partition]), stored.next_offset

    async def newest_sent_at_ms(self) -> int:
        with _Statement(await self._next_fault()):
            return max((int(sent_at_ms) for sent_at_ms, _ in self.rows), default=0)

    async def replay_key(self) -> bytes | None:
        with _Statement(await self._next_fault()):
            return self.key_of_replays

    async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        self.writes += 1
        with _Statement(await self._next_fault()):
            if self.positions.get(claim.partition) != Position(batch.first_offset, claim.epoch):
                return Written(moved=False, rows=0, dead_letter_offsets=frozenset())
            messages = list(zip(batch.columns["sent_at_ms"], batch.columns["message_id"], strict=True))
            for message in messages:
                self._insert(message, looked_for=newest_ms is None or int(message[0]) <= newest_ms)
            before = len(self.rows)
            there = [message for letter in batch.dead_letters if (message := _message(letter)) in self.rows]
            letters = [each for each in batch.dead_letters if each.refusal is None or _message(each) not in there]
            new_letters = [letter for letter in letters if _message(letter) not in self.dead_letters]
            new_letters = list({letter.message_id: letter for letter in reversed(new_letters)}.values())
            firsts = dict(reversed(list(zip(messages, _contents(batch), strict=True))))  # of a batch's repeats the first counts
            differing = {message[1] for message, content in firsts.items() if self.contents.get(message, content) != content}
            for offset, message in zip(batch.row_offsets, messages, strict=True):
                self.rows.setdefault(message, offset)
                self.contents.setdefault(message, firsts[message])
            for letter in letters:
                self.dead_letters.setdefault(_message(letter), letter.offset)
            for offset, mark, again in batch.replay_outcomes():
                is_row = again is None or (again.refusal is not None and _message(again) in there)
                self._settle(offset, mark, None if again is None or is_row else again.reason.value)
            self.positions[claim.partition] = Position(batch.next_offset, claim.epoch)
            offsets = frozenset(letter.offset for letter in new_letters)
            return Written(
                moved=True,
                rows=len(self.rows) - before,
                dead_letter_offsets=offsets,
                differing_message_ids=frozenset(differing),
            )

    def _settle(self, offset: int, mark: ReplayMark, reason: str | None) -> None:
        self.settled.append((offset, mark.attempt, reason))
        message = str(mark.sent_at_ms), mark.message_id
        begun, ended = self.replays.get(message, (0, None))
        if reason is None and mark.attempt <= begun:
            self.replays[message] = begun, "row"
        elif reason is not None and mark.attempt == begun and ended is None:
            self.replays[message] = begun, "dead_letter"

    def begin_replay(self, message: Message) -> int:
        """As `dead-letters replay` does for an open dead letter, before it sends the record; its number."""
        begun, _ = self.replays.get(message, (0, None))
        self.replays[message] = begun + 1, None
        return begun + 1

    def _insert(self, message: Message, *, looked_for: bool) -> None:
        if looked_for and message in self.rows:
            return
        if self.refuses_all or message[1] in self.refused_message_ids:
            raise RowRefusedError(self.refusal)
        if message in self.rows:
            self.surprises += 1
        if message in self.rows or message[1] in self.not_unique_message_ids:
            raise NotUniqueError(Refusal("23505", table="user_logins", constraint="made_up_key"))

    def failed_over(self, to: "MemoryStore") -> None:
        """Go on with what a standby had: ``to`` is an earlier :meth:`snapshot`."""
        self.rows, self.contents, self.dead_letters, self.replays, self.positions, self.topic_ids = deepcopy(
            (to.rows, to.contents, to.dead_letters, to.replays, to.positions, to.topic_ids)
        )

    def snapshot(self) -> "MemoryStore":
        return deepcopy(self)

    def offsets(self) -> Iterable[int]:
        return (*self.rows.values(), *self.dead_letters.values())

    def messages(self) -> Sequence[Message]:
        """What became a row or a dead letter: twice what became both."""
        return (*self.rows, *self.dead_letters)

    async def _next_fault(self) -> Fault:
        await asyncio.sleep(self.statement_seconds)
        return self.faults.popleft() if self.faults else "none"


def _message(letter: DeadLetter) -> Message:
    return str(letter.sent_at_ms), letter.message_id


def _contents(batch: Batch) -> Iterable[tuple[str, ...]]:
    columns = batch.columns
    return zip(*(columns[field.column] for field in FIELDS), strict=True)


class _Statement:
    """One statement: a fault before it keeps it from happening, a fault after it keeps its answer."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __enter__(self) -> None:
        if self._fault == "before":
            raise RetryableError("the connection broke")

    def __exit__(self, *_: object) -> None:
        if self._fault == "after":
            raise RetryableError("the connection broke")
