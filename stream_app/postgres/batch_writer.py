"""Claims partitions and writes batches: every record ends as exactly one row or one dead letter.

Promise: rows, dead letters and position move together, in one statement, and only while the caller's claim is the last one and the
position is where its batch begins. It holds because of the row lock on ``stream_positions``: a claim waits for a write under way
and a write for a claim, and each then sees what the other left (READ COMMITTED evaluates the condition again).

How it could break: a second statement (rows written apart from the position), another isolation level, or a caller that believes
a RetryableError means that nothing was written. It means: ask for the position.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg2
import structlog
from psycopg2.extensions import AsIs

from pipeline.errors import FatalError, PipelineError, cause_code
from stream_app.batch import Batch
from stream_app.positions import Claim, Partition, Position, Written
from stream_app.postgres.errors import RowRefusedError
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.queries import load_queries
from stream_app.postgres.table_check import TIME_ZONE_REFUSED, TableCheck, check_tables, load_query, time_zone_refused
from stream_app.refusals import Refusal

log = structlog.get_logger(__name__)

_REMEDY = "what somebody has put on our tables has to let them through: nothing is skipped until it does"


class BatchWriter:
    """The statements of ``sql/worker.sql`` for one consumer group."""

    def __init__(self, pool: ConnectionPool, *, consumer_group: str, owner: str, create_date_time_zone: str) -> None:
        self._pool = pool
        self._consumer_group = consumer_group
        self._owner = owner
        self._time_zone = create_date_time_zone
        self._queries = load_queries("worker.sql", pool.schema)
        self._look_at_table = load_query(pool.schema)
        self._table = TableCheck()

    async def check_tables(self) -> TableCheck:
        """See :class:`stream_app.partition_ports.Store`."""
        try:
            row = await self._pool.fetch_one(self._look_at_table, {"time_zone": self._time_zone})
        except PipelineError as error:
            if cause_code(error) == TIME_ZONE_REFUSED:
                raise time_zone_refused(self._time_zone) from error
            raise
        if row is None:
            raise RuntimeError("look_at_table returned no row")
        check = check_tables(row[0], self._pool.schema)
        if check.warnings != self._table.warnings:
            log.warning("table_may_refuse_rows", warnings=list(check.warnings))
        self._table = check
        return check

    async def position(self, partition: Partition) -> Position | None:
        """Where the partition stands; None if it was never claimed."""
        row = await self._pool.fetch_one(self._queries["read_position"], self._place(partition))
        return None if row is None else Position(next_offset=row[0], epoch=row[1])

    async def other_groups(self, topic: str) -> list[str]:
        """Whose positions for the topic are there, where ours are not."""
        row = await self._pool.fetch_one(self._queries["other_groups"], {"consumer_group": self._consumer_group, "topic": topic})
        return [] if row is None else list(row[0] or ())

    async def claim(self, partition: Partition, start: int, topic_id: str | None) -> tuple[Claim, int]:
        """See :class:`stream_app.partition_ports.Store`."""
        row = await self._fetch_one("claim_partition", self._claimed(partition, start, topic_id))
        if row is None:
            raise RuntimeError("claim_partition returned no row")
        return Claim(partition, epoch=row[1], topic_id=row[2]), row[0]

    async def newest_sent_at_ms(self) -> int:
        """See :class:`stream_app.partition_ports.Store`."""
        row = await self._pool.fetch_one(self._queries["newest_sent_at"], {})
        if row is None:
            raise RuntimeError("newest_sent_at returned no row")
        newest: int = row[0]
        return newest

    async def replay_key(self) -> bytes | None:
        """See :class:`stream_app.partition_ports.Store`."""
        row = await self._pool.fetch_one(self._queries["read_replay_key"], {})
        return None if row is None else bytes(row[0])

    async def write(self, claim: Claim, batch: Batch, newest_ms: int | None = None) -> Written:
        """See :class:`stream_app.partition_ports.Store`."""
        row = await self._fetch_one("write_batch", self._written(claim, batch, newest_ms))
        if row is None:
            raise RuntimeError("write_batch returned no row")
        return Written(
            moved=row[0] == 1,
            rows=row[1],
            dead_letter_offsets=frozenset(row[2] or ()) | frozenset(row[4] or ()),
            differing_message_ids=frozenset(row[3] or ()),
        )

    def statements(self, empty: Batch) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """What all of these run, by name, with parameters of a batch without records: to be planned, not to be run."""
        place = empty.place
        parameters = {
            "read_position": self._place(place),
            "claim_partition": self._claimed(place, 0, None),
            "newest_sent_at": {},
            "read_replay_key": {},
            "write_batch": self._written(Claim(place, 0), empty, None),
        }
        return {name: (self._queries[name], given) for name, given in parameters.items()}

    def _claimed(self, partition: Partition, start: int, topic_id: str | None) -> dict[str, Any]:
        return {**self._place(partition), "start": start, "owner": self._owner, "topic_id": topic_id}

    def _written(self, claim: Claim, batch: Batch, newest_ms: int | None) -> dict[str, Any]:
        letters, replays = batch.dead_letters, batch.replay_outcomes()
        return {
            **self._place(claim.partition),
            **{name: _literal(text) for name, text in batch.parameters().items()},
            "epoch": claim.epoch,
            "first_offset": batch.first_offset,
            "next_offset": batch.next_offset,
            "newest_ms": newest_ms,
            "time_zone": self._time_zone,
            "letter_offsets": [letter.offset for letter in letters],
            "letter_message_ids": [letter.message_id for letter in letters],
            "letter_sent_at_ms": [letter.sent_at_ms for letter in letters],
            "letter_reasons": [letter.reason for letter in letters],
            "letter_fields": [letter.field for letter in letters],
            "letter_refusals": [letter.refusal_text for letter in letters],
            "letter_sealed": [psycopg2.Binary(letter.sealed) for letter in letters],
            "replay_offsets": [offset for offset, _, _ in replays],
            "replay_message_ids": [mark.message_id for _, mark, _ in replays],
            "replay_sent_at_ms": [mark.sent_at_ms for _, mark, _ in replays],
            "replay_attempts": [mark.attempt for _, mark, _ in replays],
            "replay_reasons": [None if letter is None else letter.reason for _, _, letter in replays],
            "replay_fields": [None if letter is None else letter.field for _, _, letter in replays],
            "replay_refusals": [
                None if letter is None or letter.refusal is None else str(letter.refusal) for _, _, letter in replays
            ],
        }

    async def _fetch_one(self, query: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run one of the statements that write. What refuses a login is :class:`RowRefusedError`, with the trigger if one did."""
        try:
            return await self._pool.fetch_one(self._queries[query], parameters)
        except RowRefusedError as error:
            refusal = self._with_trigger(error.refusal)
            if query != "write_batch" or refusal.table in ("dead_letters", "stream_positions"):
                raise FatalError(f"Postgres refuses to write a dead letter or a position ({refusal}); {_REMEDY}") from error
            if refusal == error.refusal:
                raise
            raise type(error)(refusal) from error.__cause__

    def _with_trigger(self, refusal: Refusal) -> Refusal:
        """The trigger that runs the function, as the tables were last seen; Postgres names the function alone."""
        known = self._table.triggers.get(refusal.function or "")
        return refusal if known is None else replace(refusal, table=known[0], trigger=known[1])

    def _place(self, partition: Partition) -> dict[str, Any]:
        return {"consumer_group": self._consumer_group, "topic": partition.topic, "partition": partition.partition}


def _literal(text: str) -> object:
    """A column for psycopg2, which escapes byte by byte what it is given: 0.3 us a row where there is nothing to escape."""
    return text if "'" in text or "\\" in text else AsIs(f"'{text}'")
