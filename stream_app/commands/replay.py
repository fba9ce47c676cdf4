"""`faust -A stream_app dead-letters replay`: the original records, once more to the topic.

Promise: a dead letter is closed only after Kafka has acknowledged its record, and whatever this command is killed at, the same
command again ends it: what was sent twice is one row, by its message id and sent at. The steps, for some letters at a time:

1. Each letter's number of replays goes up in Postgres, committed. So a worker that reads the record knows which replay it is.
2. The records are sent, each with a mark (:mod:`stream_app.replays`), in the order of the topic, and Kafka acknowledges them.
3. The letters are closed, `replayed`, but for those of which a worker has already told what became of them.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.contract import RECORD_BYTES_MAX
from pipeline.errors import FatalError
from pipeline.settings import load
from stream_app.commands.audit import check_reason, record_action
from stream_app.commands.chosen_letters import (
    ChosenLetter,
    choice_of,
    choose,
    choosing,
    columns_of,
    details_of,
    in_chunks,
    sealed_of,
    show_choice,
)
from stream_app.commands.command import json_option, say, show_json, wants_json
from stream_app.commands.dead_letters import APPLICATION_NAME, dead_letters
from stream_app.dead_letters import Opener, OriginalRecord
from stream_app.postgres.connection import OPERATOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.reasons import Reason
from stream_app.replay_producer import ReplayedRecord, ReplayProducer
from stream_app.replays import HEADER_REPLAY, Content, ReplayMark
from stream_app.settings import OperatorSettings

REPLAYS_FAILED_MAX = 3
"""So often a record may have become a dead letter again before it takes --force."""

RECORD_OVERHEAD_BYTES = 512
"""For the batch and the mark, of what the topic takes."""

_TOO_OFTEN = f"failed again {REPLAYS_FAILED_MAX} times: mend the cause and add --force, or discard it"
_NOT_WHOLE = (
    "record_too_large: only size, digest and first bytes were kept, so there is nothing to send; have its sender send it again"
)


@dataclass(frozen=True, slots=True)
class _Marked:
    """A letter that is about to be sent, and its record as it came."""

    letter: ChosenLetter
    original: OriginalRecord


@dead_letters.command()
@choosing
@click.option("--dry-run", is_flag=True, help="Only say what would be sent. Needs no keyset and changes nothing.")
@click.option("--force", is_flag=True, help=f"Also those that failed again {REPLAYS_FAILED_MAX} times.")
@click.option(
    "--reason", default="the cause is mended", show_default=True, help="Why; kept in operator_actions with your name and the time."
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
@click.pass_context
def replay(ctx: click.Context, /, *, dry_run: bool, force: bool, reason: str, yes: bool, **chosen: Any) -> None:
    """Send the original records of open dead letters to the topic once more, in its order.

    All of KAFKA_TOPIC that are open, or those with these message IDs, or that fit the options. Shows what it will do and asks. What
    fails again is open again, with its new reason; `dead-letters list` shows what became of each. Interrupted, or told that
    something was not sent: run it again. Needs the role stream_operator, and the private keyset.
    """
    reason = check_reason(reason)
    settings = load(OperatorSettings)
    opener = None if dry_run else Opener.load(settings.dead_letter_private_keyset_file)
    queries = load_queries("commands.sql", settings.postgres_schema)
    with (
        connect(settings, role=OPERATOR, application_name=f"{APPLICATION_NAME} replay") as connection,
        connection.cursor() as cursor,
    ):
        letters = choose(cursor, queries, choice_of(chosen, topic=settings.kafka_topic, only_open=True))
        left_out = Counter(problem for letter in letters if (problem := _problem(letter, force=force)) is not None)
        letters = [letter for letter in letters if _problem(letter, force=force) is None]
        if letters and not wants_json():
            show_choice(letters)
        if dry_run or not letters:
            _end(ctx, sent=0, would_send=len(letters), left_out=left_out)
            return
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody to ask here: add --yes")
            click.confirm(f"Send {len(letters)} records to {settings.kafka_topic}?", abort=True)
        producer = ReplayProducer(settings)
        details = {**details_of(chosen, letters), "force": force}
        record_action(cursor, queries, action="dead-letters replay", target=settings.kafka_topic, details=details, reason=reason)
        assert opener is not None  # noqa: S101 - only a dry run has none
        replayer = _Replayer(cursor, queries, settings.kafka_topic, opener, producer)
        for chunk in in_chunks(letters):
            replayer.replay(chunk)
            if replayer.not_sent:  # what is behind it in the topic shall not come before it
                break
        _end(ctx, sent=replayer.sent, would_send=0, left_out=left_out + replayer.left_out + replayer.not_sent)


class _Replayer:
    def __init__(self, cursor: Cursor, queries: Mapping[str, str], topic: str, opener: Opener, producer: ReplayProducer) -> None:
        self.sent = 0
        self.left_out: Counter[str] = Counter()
        self.not_sent: Counter[str] = Counter()
        self._cursor = cursor
        self._queries = queries
        self._topic = topic
        self._opener = opener
        self._producer = producer
        cursor.execute(queries["replay_key"])
        key = cursor.fetchone()
        if key is None:
            raise FatalError("the table replay_key is empty: workers would not know a replayed record; restore its line")
        self._key = bytes(key[0])

    def replay(self, letters: Sequence[ChosenLetter]) -> None:
        """Send some of them, and close what is acknowledged."""
        sealed = sealed_of(self._cursor, self._queries, letters)
        opened = [found for letter in letters if (found := self._open(letter, sealed)) is not None]
        self._cursor.execute(self._queries["begin_replays"], columns_of([each.letter for each in opened]))
        attempts = {(sent_at, message_id): attempt for sent_at, message_id, attempt in self._cursor.fetchall()}
        begun = [each for each in opened if each.letter.key in attempts]
        if len(begun) < len(opened):
            self.left_out["closed, or begun to be replayed by somebody else meanwhile"] += len(opened) - len(begun)
        outcomes = self._producer.send([self._record(each, attempts[each.letter.key]) for each in begun])
        sent = [each.letter for each, problem in zip(begun, outcomes, strict=True) if problem is None]
        self._cursor.execute(self._queries["end_replays"], columns_of(sent, replays=[attempts[letter.key] for letter in sent]))
        self.sent += len(sent)
        self.not_sent.update(f"Kafka: {problem}; stays open" for problem in outcomes if problem is not None)

    def _open(self, letter: ChosenLetter, sealed: Mapping[tuple[Any, str], bytes]) -> _Marked | None:
        if letter.key not in sealed:
            self.left_out["removed meanwhile"] += 1
            return None
        try:
            original = self._opener.open(
                sealed[letter.key], topic=letter.topic, partition=letter.partition, offset=letter.record_offset
            )
        except FatalError as error:
            self.left_out[str(error)] += 1
            return None
        if not isinstance(original, OriginalRecord):
            self.left_out[_NOT_WHOLE] += 1
            return None
        size = len(original.key or b"") + len(original.value or b"")
        size += sum(len(name) + len(value or b"") for name, value in original.headers)
        if size + RECORD_OVERHEAD_BYTES > RECORD_BYTES_MAX:
            self.left_out["with its mark it would be larger than a record may be; have its sender send it again"] += 1
            return None
        return _Marked(letter, original)

    def _record(self, marked: _Marked, attempt: int) -> ReplayedRecord:
        letter, original = marked.letter, marked.original
        mark = ReplayMark(letter.message_id, letter.sent_at_ms, original.timestamp, attempt)
        content = Content(self._topic, original.key, original.value, original.headers)
        headers = [(HEADER_REPLAY, mark.signed(self._key, content)), *original.headers]
        return ReplayedRecord(original.partition, original.key, original.value, headers)


def _problem(letter: ChosenLetter, *, force: bool) -> str | None:
    """Why it is not sent, as far as the table says."""
    if letter.reason == Reason.RECORD_TOO_LARGE and not letter.replays:
        return _NOT_WHOLE
    return _TOO_OFTEN if letter.replays_failed >= REPLAYS_FAILED_MAX and not force else None


def _end(ctx: click.Context, *, sent: int, would_send: int, left_out: Counter[str]) -> None:
    if wants_json():
        show_json({"sent": sent, "would_send": would_send, "not_sent": dict(left_out)})
    else:
        say(f"{would_send} would be sent" if would_send else f"{sent} sent")
    for problem, count in left_out.most_common():
        say(f"{count} not sent: {problem}", to_stderr=True)
    if left_out:
        ctx.exit(1)
