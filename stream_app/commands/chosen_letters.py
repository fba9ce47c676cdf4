"""Which dead letters a command is about: its options, and what Postgres has of them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from stream_app.commands.command import say, show_table
from stream_app.reasons import Reason

CHUNK_LETTERS = 200
CHUNK_BYTES = 8 * 1_048_576
MESSAGE_IDS_RECORDED_MAX = 100
"""Of those that were named one by one, in one line of operator_actions."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ChosenLetter:
    """A dead letter without what is sealed."""

    sent_at: datetime
    message_id: str
    topic: str
    partition: int
    record_offset: int
    reason: str
    field: str | None
    failed_at: datetime
    resolution: str | None
    resolved_at: datetime | None
    replays: int
    replays_failed: int
    replay_ended: str | None
    sealed_bytes: int

    @property
    def key(self) -> tuple[datetime, str]:
        """That of the table."""
        return self.sent_at, self.message_id

    @property
    def sent_at_ms(self) -> int:
        """As the worker counts: the table's times are whole milliseconds."""
        return round((self.sent_at - _EPOCH) / timedelta(milliseconds=1))


class _Time(click.DateTime):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """In UTC, where the text doesn't say otherwise."""
        time: datetime = super().convert(value, param, ctx)
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


_TIME = _Time(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])


def choosing(function: FunctionT) -> FunctionT:
    """The arguments and options by which dead letters are chosen."""
    decorators = (
        click.argument("message_ids", nargs=-1, type=click.UUID, metavar="[ID]..."),
        click.option(
            "--reason-code", type=click.Choice([reason.value for reason in Reason]), help="Only those with this reason code."
        ),
        click.option("--field", help="Only those of this field or header."),
        click.option("--since", type=_TIME, help="Only those that failed at this time or later; UTC."),
        click.option("--until", type=_TIME, help="Only those that failed before this time; UTC."),
        click.option("--limit", type=click.IntRange(1), help="At most so many, the first ones in the topic."),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def choice_of(given: Mapping[str, Any], *, topic: str | None, only_open: bool) -> dict[str, Any]:
    """The parameters of ``choose_dead_letters`` from what :func:`choosing` was given."""
    return {
        "topic": topic,
        "message_ids": [str(message_id) for message_id in given["message_ids"]] or None,
        "reason": given["reason_code"],
        "field": given["field"],
        "since": given["since"],
        "until": given["until"],
        "limit": given["limit"],
        "only_open": only_open,
    }


def choose(cursor: Cursor, queries: Mapping[str, str], choice: Mapping[str, Any]) -> list[ChosenLetter]:
    """Those that fit, in the order of the topic."""
    cursor.execute(queries["choose_dead_letters"], choice)
    return [ChosenLetter(*row) for row in cursor.fetchall()]


def in_chunks(letters: Sequence[ChosenLetter]) -> Iterator[list[ChosenLetter]]:
    """As many at a time as memory and one transaction should hold."""
    chunk: list[ChosenLetter] = []
    size = 0
    for letter in letters:
        if chunk and (len(chunk) == CHUNK_LETTERS or size + letter.sealed_bytes > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(letter)
        size += letter.sealed_bytes
    if chunk:
        yield chunk


def columns_of(letters: Sequence[ChosenLetter], **more: Any) -> dict[str, Any]:
    """The key of each, by column, and how often its replay was begun."""
    return {
        "sent_at": [letter.sent_at for letter in letters],
        "message_ids": [letter.message_id for letter in letters],
        "replays": [letter.replays for letter in letters],
        **more,
    }


def sealed_of(cursor: Cursor, queries: Mapping[str, str], letters: Sequence[ChosenLetter]) -> dict[tuple[datetime, str], bytes]:
    """What is sealed of each, by key."""
    cursor.execute(queries["sealed_dead_letters"], columns_of(letters))
    return {(sent_at, message_id): bytes(sealed) for sent_at, message_id, sealed in cursor.fetchall()}


def details_of(given: Mapping[str, Any], letters: Sequence[ChosenLetter]) -> dict[str, Any]:
    """What was chosen, for the record of operators' actions."""
    options = {name: value for name, value in given.items() if value and name != "message_ids"}
    message_ids = [str(message_id) for message_id in given["message_ids"]][:MESSAGE_IDS_RECORDED_MAX]
    return {"dead_letters": len(letters), "message_ids": message_ids} | {name: str(value) for name, value in options.items()}


def show_choice(letters: Sequence[ChosenLetter]) -> None:
    """How many of each reason and field."""
    counts = Counter((letter.reason, letter.field) for letter in letters)
    show_table(("reason", "field", "dead_letters"), [(*what, count) for what, count in counts.most_common()])
    say()
