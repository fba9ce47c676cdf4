"""A micro-batch: records of one partition as the parameters of one statement.

Promise: each record that goes in comes out as exactly one row or one dead letter, and no raw value of a masked field is in either
of them, other than sealed. Building is pure: no socket, and a clock only to time its own steps.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from operator import attrgetter
from time import perf_counter
from typing import Literal, TypeVar, cast, get_args

from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT
from pipeline.errors import PoisonError
from stream_app.app_version import AppVersionEncoding
from stream_app.chunk import Chunk
from stream_app.cleaning import CleanedColumn, cleaner_of
from stream_app.dead_letters import DeadLetter, KafkaRecord, Sealer
from stream_app.decoding import decode_batch
from stream_app.large_records import LargeRecord
from stream_app.login_record import FIELD_BY_COLUMN, FIELDS, Field
from stream_app.masking.masker import NULL_TEXT, Masker
from stream_app.message_headers import read_headers
from stream_app.positions import Partition
from stream_app.reasons import Reason
from stream_app.reductions import Reduction
from stream_app.refusals import Refusal
from stream_app.replays import ReplayMark
from stream_app.sent_at import SentAtBounds

__all__ = ["NULL_TEXT", "UNIT_SEPARATOR", "Batch", "BatchBuilder", "KafkaRecord"]

SEALED_BYTES_MAX = 2_097_152
"""Of one statement's dead letters: in it they are hexadecimal, and the driver and libpq hold it three times over."""

TEXT_CHARACTERS_MAX = 32 * 1_048_576
"""Of one statement's rows. Of a message of 1 GiB Postgres takes nothing, it drops the connection: this is an eighth of it if each
takes four bytes, a quarter if each is escaped, too. A usual window is a tenth of it, the largest that settings allow four times."""

UNIT_SEPARATOR = "\x1f"
"""Between the values of a column. No value holds it: control characters are refused."""

COLUMN_MESSAGE_ID = "message_id"
COLUMN_SENT_AT = "sent_at_ms"

_REFUSED_FIELDS = FIELD_BY_COLUMN | {COLUMN_MESSAGE_ID: HEADER_MESSAGE_ID, "sent_at": HEADER_SENT_AT}

_offset = attrgetter("offset")

ItemT = TypeVar("ItemT")

Step = Literal["decode", "clean", "mask"]
STEPS: tuple[Step, ...] = get_args(Step)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows and dead letters of consecutive offsets of one partition."""

    first_offset: int
    """The position that this batch expects; may be lower than its first record's offset."""
    next_offset: int
    """The position after it."""
    place: Partition
    """Where the records come from."""
    origins: list[Chunk[KafkaRecord]]
    """The chunks that the records were taken from, in order: what Postgres refuses is unpacked from there once more."""
    row_offsets: list[int]
    """The Kafka offset of each row, ascending."""
    texts: dict[str, list[str]]
    """By SQL parameter (the column's name): the rows' values as Postgres reads them, ``NULL_TEXT`` for NULL. Those of a slice are
    one text, ``UNIT_SEPARATOR`` between them, made while they were in the processor's cache; the texts join as the values would."""
    message_hashes: set[int]
    """Of the rows' message ids. As many as there are rows, unless a message is there more than once (or two hashes meet)."""
    sent_at_ms: "array[int]"
    """Sent at of each row, in milliseconds since the epoch."""
    dead_letters: list[DeadLetter]
    """Ascending by offset."""
    extra_key_offsets: list[int]
    """Offsets of the rows whose record had keys that no field declares, ascending."""
    reduced_offsets: dict[tuple[str, Reduction], list[int]]
    """By field's name and what was left off its value: the offsets of such rows, ascending; no list is empty."""
    replays: dict[int, ReplayMark]
    """The marks of replayed records by offset, ascending: whatever became of them, their dead letters are told."""

    @property
    def records(self) -> int:
        """How many records went in."""
        return len(self.row_offsets) + len(self.dead_letters)

    @property
    def extra_keys(self) -> int:
        """How many rows' records had keys that no field declares."""
        return len(self.extra_key_offsets)

    @property
    def oldest_sent_at_ms(self) -> int | None:
        """The earliest sent at of rows and dead letters; None when there are none. Replays don't count, see below."""
        letters = (letter.sent_at_ms for letter in self.dead_letters if letter.offset not in self.replays)
        return min(chain(self.first_sent_at_ms, letters), default=None)

    @property
    def first_sent_at_ms(self) -> "array[int]":
        """Sent at of the rows that are no replays: how late those are says nothing of the stream."""
        if not self.replays:
            return self.sent_at_ms
        pairs = zip(self.row_offsets, self.sent_at_ms, strict=True)
        return array("q", (sent_at_ms for offset, sent_at_ms in pairs if offset not in self.replays))

    def replay_outcomes(self) -> list[tuple[int, ReplayMark, DeadLetter | None]]:
        """Of each replayed record its offset, its mark, and the dead letter if it is one again."""
        if not self.replays:
            return []
        letters = {letter.offset: letter for letter in self.dead_letters}
        return [(offset, mark, letters.get(offset)) for offset, mark in self.replays.items()]

    @property
    def columns(self) -> dict[str, list[str]]:
        """The rows' values, by SQL parameter, each on its own: cut out of the texts for whoever asks."""
        joined = {name: UNIT_SEPARATOR.join(texts) for name, texts in self.texts.items()}
        return {name: text.split(UNIT_SEPARATOR) if self.row_offsets else [] for name, text in joined.items()}

    def parameters(self) -> dict[str, str]:
        """Each column as one text, for ``string_to_array`` with these two characters. No row: "", which it reads as no element.

        Of a message that is in the batch more than once, only its first row.
        """
        texts = self.texts
        if len(self.message_hashes) < len(self.row_offsets):
            columns = self.columns
            firsts: dict[tuple[str, str], int] = {}
            for row, message in enumerate(zip(columns[COLUMN_SENT_AT], columns[COLUMN_MESSAGE_ID], strict=True)):
                firsts.setdefault(message, row)
            texts = {name: [column[row] for row in firsts.values()] for name, column in columns.items()}
        return {name: UNIT_SEPARATOR.join(values) for name, values in texts.items()}

    def differing_repeats(self) -> frozenset[str]:
        """Ids of messages that are in the batch more than once, and not with the same content each time."""
        if len(self.message_hashes) == len(self.row_offsets):
            return frozenset()
        columns = self.columns
        firsts: dict[tuple[str, ...], tuple[str, ...]] = {}
        messages = zip(columns[COLUMN_SENT_AT], columns[COLUMN_MESSAGE_ID], strict=True)
        return frozenset(
            message[1]
            for message, row in zip(messages, zip(*columns.values(), strict=True), strict=True)
            if firsts.setdefault(message, row) != row
        )

    def split(self, rows: int | None = None) -> tuple["Batch", "Batch"]:
        """Two batches: the first with so many of the rows, or half of them; dead letters go with their offsets.

        Only with two rows or more.
        """
        if len(self.row_offsets) < 2:  # noqa: PLR2004
            raise ValueError("a batch with fewer than two rows has no halves")
        first, second = self._parts([self.row_offsets[len(self.row_offsets) // 2 if rows is None else rows]])
        return first, second

    def behind(self, letters: "Batch | None") -> "Batch":
        """This batch with the dead letters of the one before it, which has no rows: one statement for both."""
        if letters is None:
            return self
        if letters.row_offsets or letters.next_offset != self.first_offset:
            raise ValueError("a batch goes behind one that ends where it begins, and has no rows")
        return replace(
            self,
            first_offset=letters.first_offset,
            dead_letters=[*letters.dead_letters, *self.dead_letters],
            replays={**letters.replays, **self.replays},
        )

    @property
    def sealed_bytes(self) -> int:
        """What its dead letters take, sealed."""
        return sum(len(letter.sealed) for letter in self.dead_letters)

    def statements(self) -> Iterator["Batch"]:
        """What one statement takes: itself, or parts with SEALED_BYTES_MAX and TEXT_CHARACTERS_MAX, or with one record, at most."""
        letters = [(letter.offset, len(letter.sealed)) for letter in self.dead_letters]
        boundaries = set(_boundaries(letters, SEALED_BYTES_MAX))
        if sum(len(text) for texts in self.texts.values() for text in texts) > TEXT_CHARACTERS_MAX:
            sizes = [sum(map(len, row)) for row in zip(*self.columns.values(), strict=True)]
            boundaries.update(_boundaries(list(zip(self.row_offsets, sizes, strict=True)), TEXT_CHARACTERS_MAX))
        return self._parts(sorted(boundaries)) if boundaries else iter([self])

    def halves(self) -> Iterator["Batch"]:
        """Two batches with half of the records each, rows or dead letters. Only with two records or more."""
        offsets = sorted([*self.row_offsets, *(letter.offset for letter in self.dead_letters)])
        if len(offsets) < 2:  # noqa: PLR2004
            raise ValueError("a batch with fewer than two records has no halves")
        return self._parts([offsets[len(offsets) // 2]])

    def _parts(self, boundaries: Sequence[int]) -> Iterator["Batch"]:
        columns = self.columns  # kept until the last part is taken: cut once
        for start, end in pairwise([self.first_offset, *boundaries, self.next_offset]):
            yield self._part(columns, start, end)

    def _part(self, columns: dict[str, list[str]], first_offset: int, next_offset: int) -> "Batch":
        def within(offsets: Sequence[int]) -> slice:
            return slice(bisect_left(offsets, first_offset), bisect_left(offsets, next_offset))

        rows = within(self.row_offsets)
        columns = {name: column[rows] for name, column in columns.items()}
        return Batch(
            first_offset,
            next_offset,
            self.place,
            self.origins,
            self.row_offsets[rows],
            columns,  # each value is a text of its own, which joins to the same
            set(map(hash, columns[COLUMN_MESSAGE_ID])),
            self.sent_at_ms[rows],
            self.dead_letters[within([letter.offset for letter in self.dead_letters])],
            self.extra_key_offsets[within(self.extra_key_offsets)],
            {what: part for what, offsets in self.reduced_offsets.items() if (part := offsets[within(offsets)])},
            {offset: mark for offset, mark in self.replays.items() if first_offset <= offset < next_offset},
        )

    @property
    def is_slow_to_read_again(self) -> bool:
        """Whether :meth:`original` may take so long that it is to be asked on a thread of its own."""
        return any(chunk.has_unread for chunk in self.origins)

    def original(self, offset: int) -> KafkaRecord:
        """The record of one of the rows, as it came."""
        return next(chunk for chunk in self.origins if chunk.first_offset <= offset < chunk.next_offset).original(offset)


class BatchBuilder:
    """Builds batches: decodes, cleans, masks, and seals what can't become a row."""

    def __init__(
        self,
        masker: Masker,
        sealer: Sealer,
        sent_at_bounds: SentAtBounds,
        app_version_encoding: AppVersionEncoding = "ordered",
        on_step: Callable[[Step, float], None] = lambda _, __: None,
    ) -> None:
        """``on_step`` is told of each step and its seconds, once a slice."""
        self._on_step = on_step
        self._masker = masker
        self._sealer = sealer
        self._sent_at_bounds = sent_at_bounds
        self._fields = tuple((field, cleaner_of(field, app_version_encoding)) for field in FIELDS)
        self._columns = (*(field.column for field in FIELDS), COLUMN_SENT_AT, COLUMN_MESSAGE_ID)
        self.replay_key: bytes | None = None
        """What marks of replayed records verify with; asked of Postgres at each claim."""

    def begin(self, place: Partition, first_offset: int) -> Batch:
        """An empty batch, which :meth:`add` fills."""
        return Batch(
            first_offset, first_offset, place, [], [], {name: [] for name in self._columns}, set(), array("q"), [], [], {}, {}
        )

    def sent_at_ms(self, place: Partition, record: KafkaRecord) -> int:
        """Sent at of one record, or what stands in for it; of a replayed one since when it is in the topic again."""
        headers = read_headers(place, [record], self._sent_at_bounds, self.replay_key)
        return record.timestamp if headers.replays else int(headers.sent_at_ms[0])

    def add(self, batch: Batch, records: Sequence[KafkaRecord]) -> None:
        """Put the records that follow into the batch. Never raises for what they hold."""
        began = perf_counter()
        headers = read_headers(batch.place, records, self._sent_at_bounds, self.replay_key)
        decoded = decode_batch([record.value for record in records])
        problems = headers.problems | decoded.problems  # what is wrong with the body counts first
        rows: Sequence[int] = _without(range(len(records)), decoded.problems)
        decoded_at = perf_counter()
        cleaned: list[CleanedColumn] = []
        uncleaned: dict[int, PoisonError] = {}
        for (_, cleaner), texts in zip(self._fields, decoded.columns(), strict=True):
            column = cleaner.clean(texts)
            cleaned.append(column)
            uncleaned = column.problems | uncleaned  # the first field in the declaration counts
        problems |= {rows[login]: problem for login, problem in uncleaned.items()}
        if any(column.reduced for column in cleaned):
            self._note_reductions(batch, cleaned, [None if index in problems else records[index].offset for index in rows])
        if len(problems) > len(records) - len(rows):
            kept = [login for login, index in enumerate(rows) if index not in problems]
            for column in cleaned:
                column.values = [column.values[login] for login in kept]
            rows = [rows[login] for login in kept]
        cleaned_at = perf_counter()

        if rows:
            for (field, _), column in zip(self._fields, cleaned, strict=True):
                batch.texts[field.column].append(UNIT_SEPARATOR.join(self._texts(field, column)))
        masked_at = perf_counter()
        if rows:
            sent_at_ms, message_ids = _without(headers.sent_at_ms, problems), _without(headers.message_ids, problems)
            batch.row_offsets.extend([record.offset for record in _without(records, problems)])
            batch.texts[COLUMN_SENT_AT].append(UNIT_SEPARATOR.join(sent_at_ms))
            batch.sent_at_ms.extend(map(int, sent_at_ms))
            batch.texts[COLUMN_MESSAGE_ID].append(UNIT_SEPARATOR.join(message_ids))
            batch.message_hashes.update(map(hash, message_ids))
        batch.replays.update((records[index].offset, mark) for index, mark in headers.replays.items())
        batch.dead_letters.extend(
            self._dead_letter(batch, records[index], headers.message_ids[index], headers.sent_at_ms[index], problems[index])
            for index in sorted(problems)
        )
        batch.extra_key_offsets.extend(records[index].offset for index in sorted(decoded.extra_keys - problems.keys()))
        for step, seconds in zip(STEPS, (decoded_at - began, cleaned_at - decoded_at, masked_at - cleaned_at), strict=True):
            self._on_step(step, seconds)

    def refuse_row(self, batch: Batch, refusal: Refusal) -> Batch:
        """The batch whose only row Postgres refused, that row now a dead letter; ``refusal``: what Postgres named."""
        (offset,) = batch.row_offsets
        columns = batch.columns
        (message_id,), (sent_at_ms,) = columns[COLUMN_MESSAGE_ID], columns[COLUMN_SENT_AT]
        column = refusal.column
        problem = PoisonError(Reason.ROW_REFUSED, None if column is None else _REFUSED_FIELDS.get(column, column))
        letter = self._dead_letter(batch, batch.original(offset), message_id, sent_at_ms, problem)
        letter = replace(letter, refusal=refusal)
        return replace(
            batch,
            row_offsets=[],
            texts={name: [] for name in batch.texts},
            message_hashes=set(),
            sent_at_ms=array("q"),
            dead_letters=sorted([*batch.dead_letters, letter], key=_offset),
            extra_key_offsets=[],
            reduced_offsets={},
        )

    def _note_reductions(self, batch: Batch, columns: Sequence[CleanedColumn], offsets: Sequence[int | None]) -> None:
        """``offsets``: of each value of a column; None where the record becomes no row."""
        for (field, _), column in zip(self._fields, columns, strict=True):
            for reduction, indexes in column.reduced.items():
                reduced = [offset for index in indexes if (offset := offsets[index]) is not None]
                if reduced:
                    batch.reduced_offsets.setdefault((field.name, reduction), []).extend(reduced)

    def _texts(self, field: Field, column: CleanedColumn) -> list[str]:
        if field.masking is None:
            return cast("list[str]", column.values)
        if Reduction.NO_VALUE not in column.reduced:
            return self._masker.mask(field.name, cast("list[bytes]", column.values))
        masked = iter(self._masker.mask(field.name, [value for value in cast("list[bytes]", column.values) if value]))
        return [next(masked) if value else NULL_TEXT for value in column.values]

    def _dead_letter(self, batch: Batch, record: KafkaRecord, message_id: str, sent_at_ms: str, problem: PoisonError) -> DeadLetter:
        mark = batch.replays.get(record.offset)
        if mark is not None:  # it stays the dead letter that it was, also where other rules would give it another sent at
            message_id, sent_at_ms = mark.message_id, str(mark.sent_at_ms)
        if isinstance(record, LargeRecord):  # it has no body that could have been looked at
            problem = PoisonError(Reason.RECORD_TOO_LARGE)
        return DeadLetter(
            record.offset,
            message_id,
            int(sent_at_ms),
            Reason(problem.reason),
            problem.field,
            self._sealer.seal(batch.place, record),
        )


def _boundaries(sizes: Sequence[tuple[int, int]], size_max: int) -> Iterator[int]:
    """Offsets at which to cut, so that no part is larger than ``size_max``, or it is one item; ``sizes`` by offset."""
    room = size_max
    for index, (offset, size) in enumerate(sizes):
        if index and size > room:
            yield offset
            room = size_max
        room -= size


def _without(items: Sequence[ItemT], problems: dict[int, PoisonError]) -> Sequence[ItemT]:
    return [item for index, item in enumerate(items) if index not in problems] if problems else items
