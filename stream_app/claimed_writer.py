"""Writes batches under one claim: each is in Postgres once, or the claim is lost.

Promise: :meth:`ClaimedWriter.write` returns when the batch is in Postgres, however long that takes, and raises
:class:`ClaimLostError` when somebody else's claim or a position that went back make that impossible. An outcome that is not known
is never guessed: the batch is sent again, and if the fence refuses it, the position in Postgres says whether it is in. A row that
Postgres refuses is found by halving the batch and becomes a dead letter; no other record is touched by it. It is held back until
one is taken: row after row refused for one reason stops the partition instead, with none of them written (``refusals.py``). What a
unique index refuses is sent once more first, each message looked for: one that is there is no refused row.

A statement at which the connection breaks, or the server runs out of memory or of the time it may take, although it answers
otherwise, is not sent for ever as it is: the batch is halved. If that happens to a single record, the partition stops: nothing is
known to be wrong with it. But for want of time, which says nothing about one record: that one is sent until there is time for it.

How it could break: taking a RetryableError for "nothing was written", or going on after ClaimLostError.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.errors import FatalError, RetryableError
from stream_app.batch import SEALED_BYTES_MAX, Batch, BatchBuilder
from stream_app.metrics import WorkerMetrics
from stream_app.partition_ports import Store
from stream_app.positions import Claim, Position, Written
from stream_app.postgres.errors import (
    NotUniqueError,
    RowRefusedError,
    StatementBrokenError,
    StatementLimitError,
    StatementTimedOutError,
)
from stream_app.refusals import Refusal, RefusedRun
from stream_app.refused_rows import RefusedRows

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0
RECLAIM_SECONDS = 15.0
"""A partition that was fenced or stopped, and that the consumer group still gives to us, is claimed again after this long: a fence
by a worker that had not noticed its own end would otherwise leave the partition with nobody."""

MESSAGE_IDS_LOGGED_MAX = 10
"""Of one batch, in one line."""


HELD_ROWS_MAX = 100
"""So many refused rows are held back at most; each statement that tries another row has their dead letters."""

BROKEN_MAX = 2
"""So often a statement may break that the server answers before and after: then its batch is halved."""
BROKEN_ALONE_MAX = 3
"""The same for a single record, for which the partition stops."""


class _TooMuchError(Exception):
    """Postgres does not take the statement, and takes others."""


class ClaimLostError(Exception):
    """The claim can't be used any more: claim again after ``seconds``."""

    def __init__(self, why: str, seconds: float = RETRY_SECONDS_MIN, *, fenced: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.seconds = seconds
        self.fenced = fenced


def retrying(what: str, log: Any, sleep: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
    """Try for ever while the error is retryable, with backoff and jitter; each problem is logged once."""
    said: set[str] = set()  # a connection that is closed is followed by why there is no other: that one is what a person needs

    def say(state: RetryCallState) -> None:
        problem = str(state.outcome.exception()) if state.outcome is not None else ""
        if problem not in said:
            said.add(problem)
            log.warning("retrying", what=what, problem=problem)

    return AsyncRetrying(
        retry=retry_if_exception_type(RetryableError),
        wait=wait_random_exponential(multiplier=RETRY_SECONDS_MIN, max=RETRY_SECONDS_MAX),
        before_sleep=say,
        sleep=sleep,
        reraise=True,
    )


class ClaimedWriter:
    """One claim's writes, one after the other; ``next_offset`` is the position that they have reached."""

    def __init__(
        self,
        claim: Claim,
        next_offset: int,
        newest_ms: int,
        *,
        store: Store,
        builder: BatchBuilder,
        refused_run: RefusedRun,
        refused_rows: RefusedRows,
        metrics: WorkerMetrics,
        log: Any,
        sleep: Callable[[float], Awaitable[None]],
        on_written: Callable[[Batch], None],
    ) -> None:
        """``newest_ms``: of all rows, asked after the claim; ``on_written`` is called after each part of a batch that is in."""
        self.claim = claim
        self.next_offset = next_offset
        self._newest_ms: int | None = newest_ms
        self._store = store
        self._builder = builder
        self._refused_run = refused_run
        self._refused_rows = refused_rows
        self._metrics = metrics
        self._log = log
        self._sleep = sleep
        self._on_written = on_written

    async def write(self, batch: Batch) -> None:
        """Write a batch. Raises :class:`ClaimLostError`, and :class:`FatalError` when a person has to act."""
        for part in batch.statements():
            await self._write_part(part)

    async def _write_part(self, batch: Batch) -> None:
        try:
            written = await self._write_looking_again(batch)
        except RowRefusedError as refused:
            await self._write_around_refused_rows(batch, refused.refusal)
        except (_TooMuchError, StatementLimitError) as too_much:
            for half in self._halves(batch, too_much):
                await self._write_part(half)
        else:
            self._has_written(batch, written)

    def _has_written(self, batch: Batch, written: Written) -> None:
        self.next_offset = batch.next_offset
        if self._newest_ms is not None:
            self._newest_ms = max(self._newest_ms, max(batch.sent_at_ms, default=0))
        if written.rows:
            self._refused_run.row_written()
        self._metrics.rows_written.inc(written.rows)
        self._metrics.duplicates_skipped.inc(batch.records - written.rows - len(written.dead_letter_offsets))
        self._tell_differing(written.differing_message_ids | batch.differing_repeats())
        if written.dead_letter_offsets:
            for letter in batch.dead_letters:
                if letter.offset in written.dead_letter_offsets:
                    self._metrics.dead_letters.labels(letter.reason).inc()
                    self._refused_rows.became(batch.place, letter)
            self._refused_rows.look()
        self._on_written(batch)

    def _tell_differing(self, message_ids: frozenset[str]) -> None:
        """Of messages that came again with other content: forged, or built by other rules than the row that is there."""
        if message_ids:
            self._metrics.duplicates_differing.inc(len(message_ids))
            self._log.warning(
                "duplicates_differ", messages=len(message_ids), message_ids=sorted(message_ids)[:MESSAGE_IDS_LOGGED_MAX]
            )

    async def check(self) -> None:
        """Ask Postgres, when nothing has been written for a while, whether it still has what was. Raises ClaimLostError if not.

        A failover may have taken the last commits back: without this they would be missing until the next record comes.
        """
        with suppress(RetryableError):  # asked again at the next occasion; what has to be written finds out by itself
            stored = await self._stored_offset()
            if stored != self.next_offset:
                raise self._position_changed(Position(stored, self.claim.epoch))

    async def _write_around_refused_rows(self, batch: Batch, refusal: Refusal | None) -> None:
        """Find the rows that are refused, and write all others.

        Dead letters of refused rows are held back, and go into the statement that tries what is behind them: were they written
        before, a table that takes no row at all would have made a dead letter of each. Behind a refused row the next one is tried
        alone. So where all n are refused, log2 n statements find the first, and one each those behind it, up to REFUSED_ROWS_MAX.
        """
        rows, todo = len(batch.row_offsets), [batch]
        held: Batch | None = None
        while todo:
            part = todo.pop()
            if refusal is None:  # else it is known of the part that one of its rows is refused
                if held is not None and _is_enough(held):
                    await self._write_held(held)
                    held = None
                if held is not None and len(part.row_offsets) > 1:
                    part, rest = part.split(1)
                    todo.append(rest)
                try:
                    refusal = await self._try(part, held)
                except (_TooMuchError, StatementLimitError) as too_much:
                    todo.extend(reversed(self._halves(part.behind(held), too_much)))
                    held = None
                    continue
            if refusal is None:
                held = None
            elif len(part.row_offsets) > 1:
                self._metrics.batch_splits.inc()
                todo.extend(reversed(part.split()))
            else:
                held = (await self._refuse_row(part, refusal)).behind(held)
            refusal = None
        self._refused_run.ends_batch(rows)
        if held is not None:
            await self._write_held(held)

    async def _try(self, part: Batch, held: Batch | None) -> Refusal | None:
        """Write a part and the dead letters before it; the reason if Postgres refuses a row of it."""
        whole = part.behind(held)
        try:
            # Where each message is looked for, an index that refuses it is not asked again: of a message that was being written at
            # that moment, the statement that would write a dead letter finds the row.
            written = await (self._write_whole if self._newest_ms is None else self._write_looking_again)(whole)
        except RowRefusedError as refused:
            return refused.refusal
        if held is not None:
            self._refused_run.became_dead_letters()
        self._has_written(whole, written)
        return None

    async def _write_held(self, held: Batch) -> None:
        """Write dead letters that were held back."""
        todo = list(held.statements())
        while todo:
            part = todo.pop(0)
            try:
                refusal = await self._try(part, None)
            except (_TooMuchError, StatementLimitError) as too_much:
                todo[:0] = self._halves(part, too_much)
                continue
            if refusal is not None:
                raise _dead_letter_refused(refusal)
        self._refused_run.became_dead_letters()

    async def _refuse_row(self, batch: Batch, refusal: Refusal) -> Batch:
        """The batch whose one row is refused, with a dead letter in its place. Raises FatalError if that row is one too many."""
        if not batch.row_offsets:
            raise _dead_letter_refused(refusal)
        self._refused_run.refused(refusal, batch.row_offsets[0])
        if batch.is_slow_to_read_again:
            return await asyncio.to_thread(self._builder.refuse_row, batch, refusal)
        return self._builder.refuse_row(batch, refusal)

    def _halves(self, batch: Batch, too_much: Exception) -> list[Batch]:
        """What to try in place of a batch that is too much for one statement; nothing is written of it."""
        if batch.records < 2:  # noqa: PLR2004
            raise FatalError(
                f"Postgres doesn't take the record before offset {batch.next_offset}, alone in its statement, and answers"
                f" otherwise: {too_much}; nothing is skipped until it does"
            ) from too_much
        self._metrics.batch_splits.inc()
        return list(batch.halves())

    async def _write_looking_again(self, batch: Batch) -> Written:
        """A message comes into one partition, so what was sent after all that is there and all that we wrote can't be there.

        Unless messages have changed their partitions (the topic has more of them now), or two pipelines write one table.
        """
        try:
            return await self._write_whole(batch)
        except NotUniqueError:
            if self._newest_ms is not None:
                self._newest_ms = None  # until the next claim: each such surprise costs a whole statement
                self._log.info("looks_for_each_message", epoch=self.claim.epoch)
            return await self._write_whole(batch)  # with None, too: another one may just have been writing it

    async def _write_whole(self, batch: Batch) -> Written:
        """The first try goes without tenacity, which leaves thirty objects in cycles behind."""
        try:
            return await self._write_once(batch)
        except RetryableError as error:
            failures = [error]
        problem = str(failures[0])
        never_too_much = StatementTimedOutError if batch.records < 2 else ()  # noqa: PLR2004
        broken = int(isinstance(failures[0], StatementBrokenError) and not isinstance(failures[0], never_too_much))
        broken_max = BROKEN_MAX if batch.records > 1 else BROKEN_ALONE_MAX
        async for attempt in retrying("write", self._log, self._sleep):
            with attempt:
                if failures:
                    raise failures.pop()
                if broken and await self._is_in(batch):  # asked first: a server that does not answer is no reason to halve
                    return _all_of(batch)
                if broken >= broken_max:
                    raise _TooMuchError(problem)
                try:
                    return await self._write_once(batch)
                except StatementBrokenError as error:
                    if not isinstance(error, never_too_much):
                        broken, problem = broken + 1, str(error)
                    raise
        raise AssertionError("unreachable: retrying ends by returning or raising")

    async def _write_once(self, batch: Batch) -> Written:
        written = await self._store.write(self.claim, batch, self._newest_ms)
        if written.moved:
            return written
        if await self._is_in(batch):  # by an attempt whose answer was lost
            return _all_of(batch)
        raise RetryableError("the position is free again")  # what refused the write was undone meanwhile

    async def _is_in(self, batch: Batch) -> bool:
        """Ask Postgres whether a batch that the fence refused is in; False: it can be written now."""
        try:
            stored = await self._stored_offset()
        except ClaimLostError as lost:
            if lost.fenced:
                self._metrics.writes_fenced.inc()
                self._log.warning("write_fenced", epoch=self.claim.epoch, dropped_records=batch.records)
            raise
        if stored in (batch.first_offset, batch.next_offset):
            return stored == batch.next_offset
        raise self._position_changed(Position(stored, self.claim.epoch))

    async def _stored_offset(self) -> int:
        """The stored position, if the claim is still the last one. Raises :class:`ClaimLostError`."""
        stored = await self._store.position(self.claim.partition)
        if stored is not None and stored.epoch > self.claim.epoch:
            raise ClaimLostError("another worker has claimed the partition", RECLAIM_SECONDS, fenced=True)
        if stored is None or stored.epoch < self.claim.epoch:
            raise self._position_changed(stored)
        return stored.next_offset

    def _position_changed(self, found: Position | None) -> ClaimLostError:
        """Set back by a failover to a standby that missed the last commits, or by hand: read from there again."""
        self._log.warning("position_changed", expected=self.next_offset, epoch=self.claim.epoch, found=found)
        return ClaimLostError("the position in Postgres was changed")


def _is_enough(held: Batch) -> bool:
    """Whether no more dead letters should be held back."""
    return len(held.dead_letters) >= HELD_ROWS_MAX or held.sealed_bytes > SEALED_BYTES_MAX


def _dead_letter_refused(refusal: Refusal) -> FatalError:
    return FatalError(f"Postgres refuses a dead letter ({refusal}); nothing is skipped until it takes it")


def _all_of(batch: Batch) -> Written:
    """What a batch did whose answer was lost: which of its messages were there before is not known, so none counts as such."""
    dead_letter_offsets = frozenset(letter.offset for letter in batch.dead_letters)
    return Written(moved=True, rows=len(batch.row_offsets), dead_letter_offsets=dead_letter_offsets)
