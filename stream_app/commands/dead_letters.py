"""`faust -A stream_app dead-letters`: the records that could not become rows; shown, discarded, exported, removed.

Promise: nothing is opened before the line in ``operator_actions`` that says who, what and why is committed.
"""

import base64
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

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
from stream_app.commands.command import Group, cli, json_option, named, say, show_json, show_table, wants_json
from stream_app.commands.opened_letters import as_json, lines_of, raw_value
from stream_app.dead_letters import Opener
from stream_app.postgres.connection import OPERATOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings
from stream_app.reasons import Reason
from stream_app.settings import OperatorSettings

APPLICATION_NAME = "stream_app dead-letters"
COUNT_TITLES = ("reason", "dead_letters")
LETTER_TITLES = (
    "failed_at",
    "reason",
    "field",
    "topic",
    "partition",
    "record_offset",
    "message_id",
    "sent_at",
    "resolution",
    "refusal",
    "replays",
    "replay_ended",
)
PURGED_AT_A_TIME = 1_000


@cli.group(cls=Group, name="dead-letters")
def dead_letters() -> None:
    """The records that could not become rows."""


@dead_letters.command(name="list")
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Only those with this reason.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="At most so many, the newest.")
@json_option
def list_dead_letters(*, reason: str | None, limit: int) -> None:
    """How many of each reason, then the newest first. Never their content.

    Open ones have no resolution. Of one that was replayed, replay_ended says what it became: a row, a dead letter again, or nothing
    as long as no worker has written it. Needs the role stream_operator.
    """
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    with connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection, connection.cursor() as cursor:
        cursor.execute(queries["count_dead_letters"], {"reason": reason})
        counts = cursor.fetchall()
        cursor.execute(queries["newest_dead_letters"], {"reason": reason, "limit": limit})
        letters = cursor.fetchall()
    if wants_json():
        show_json({"counts": dict(counts), "dead_letters": named(LETTER_TITLES, letters)})
        return
    if not counts:
        say("no dead letters")
        return
    show_table(COUNT_TITLES, counts)
    if letters:
        say()
        show_table(LETTER_TITLES, letters)


@dead_letters.command()
@click.argument("message_id", type=click.UUID, metavar="ID")
@click.option("--reason", required=True, help="Why; kept in operator_actions with your name and the time.")
@click.option("--raw", is_flag=True, help="Only the value, byte for byte.")
@json_option
def show(*, message_id: Any, reason: str, raw: bool) -> None:
    """Open the dead letter with this message ID, for a reason.

    What a terminal might obey is shown as an escape; --raw and --json have each byte. Needs the role stream_operator, and the
    private keyset (DEAD_LETTER_PRIVATE_KEYSET_FILE).
    """
    reason = check_reason(reason)
    settings = load(OperatorSettings)
    opener = Opener.load(settings.dead_letter_private_keyset_file)
    queries = load_queries("commands.sql", settings.postgres_schema)
    chosen = dict.fromkeys(("reason_code", "field", "since", "until", "limit")) | {"message_ids": [message_id]}
    with connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection, connection.cursor() as cursor:
        letters = choose(cursor, queries, choice_of(chosen, topic=None, only_open=False))
        if not letters:
            raise FatalError(f"there is no dead letter with the message id {message_id}")
        if raw and len(letters) > 1:
            raise click.UsageError(f"{len(letters)} dead letters have this message id: without --raw all are shown")
        details = {"dead_letters": len(letters)}
        record_action(cursor, queries, action="dead-letters show", target=str(message_id), details=details, reason=reason)
        sealed = sealed_of(cursor, queries, letters)
        if len(sealed) < len(letters):
            raise FatalError(f"the dead letter with the message id {message_id} was purged meanwhile")
    # The connection is in autocommit: the line stands.
    shown = [(letter, _open(opener, letter, sealed[letter.key])) for letter in letters]
    if raw:
        sys.stdout.buffer.write(raw_value(shown[0][1]))
        sys.stdout.buffer.flush()
    elif wants_json():
        show_json([as_json(letter, original) for letter, original in shown])
    else:
        for place, (letter, original) in enumerate(shown):
            if place:
                say()
            for line in lines_of(letter, original):
                say(line)


def _open(opener: Opener, letter: ChosenLetter, sealed: bytes) -> Any:
    return opener.open(sealed, topic=letter.topic, partition=letter.partition, offset=letter.record_offset)


@dead_letters.command()
@choosing
@click.option("--reason", required=True, help="Why; kept in operator_actions with your name, the time and the choice.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def discard(*, reason: str, yes: bool, **chosen: Any) -> None:
    """Close open dead letters without a replay: nothing more is to be done for them.

    Those with these message IDs, or that fit the options: some choice must be given. They stay in the table until they are purged.
    Needs the role stream_operator.
    """
    reason = check_reason(reason)
    if not any(value for value in chosen.values()):
        raise click.UsageError("expected message ids, or an option that says which")
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    with connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection, connection.cursor() as cursor:
        letters = choose(cursor, queries, choice_of(chosen, topic=None, only_open=True))
        if letters:
            if not wants_json():
                show_choice(letters)
            _ask(f"Discard {len(letters)} dead letters?", yes=yes)
            details = details_of(chosen, letters)
            connection.autocommit = False
            record_action(cursor, queries, action="dead-letters discard", target="dead_letters", details=details, reason=reason)
        discarded = 0
        for chunk in in_chunks(letters):
            cursor.execute(queries["discard_dead_letters"], columns_of(chunk))
            discarded += len(cursor.fetchall())
        if letters:
            connection.commit()
    if wants_json():
        show_json({"discarded": discarded})
    else:
        say(f"{discarded} discarded")
    if discarded < len(letters):
        raise FatalError(f"{len(letters) - discarded} were closed or begun to be replayed by somebody else meanwhile: look again")


@dead_letters.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@choosing
@click.option("--reason", required=True, help="Why; kept in operator_actions with your name, the time and the choice.")
@click.option("--opened", is_flag=True, help="Opened with the private keyset, each value in the clear; else sealed.")
@json_option
def export(*, file: Path, reason: str, opened: bool, **chosen: Any) -> None:
    """Write dead letters to a new FILE, one JSON object a line, readable by you only.

    All, or those with these message IDs, or that fit the options; closed ones too. Sealed they open with the private keyset only,
    and stay in the table. Needs the role stream_operator.
    """
    reason = check_reason(reason)
    settings = load(OperatorSettings)
    opener = Opener.load(settings.dead_letter_private_keyset_file) if opened else None
    queries = load_queries("commands.sql", settings.postgres_schema)
    with connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection, connection.cursor() as cursor:
        letters = choose(cursor, queries, choice_of(chosen, topic=None, only_open=False))
        details = {**details_of(chosen, letters), "opened": opened}
        record_action(cursor, queries, action="dead-letters export", target=file.name, details=details, reason=reason)
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise FatalError(f"{file} exists already: nothing was written") from None
        except OSError as error:
            raise FatalError(f"can't write {file}: {error.strerror}") from error
        written = 0
        try:
            with os.fdopen(descriptor, "wb") as out:
                for chunk in in_chunks(letters):
                    sealed = sealed_of(cursor, queries, chunk)
                    for letter in chunk:
                        if letter.key in sealed:  # else it was purged meanwhile
                            out.write(_line(opener, letter, sealed[letter.key]))
                    written += len(sealed)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            file.unlink()  # half of it would look like all of it
            raise
    if written < len(letters):
        say(f"{len(letters) - written} were purged meanwhile", to_stderr=True)
    say(f"{written} written to {file}", to_stderr=wants_json())
    if wants_json():
        show_json({"written": written})


def _line(opener: Opener | None, letter: ChosenLetter, sealed: bytes) -> bytes:
    if opener is None:
        content = {**as_json(letter), "sealed_base64": base64.b64encode(sealed).decode()}
    else:
        content = as_json(letter, _open(opener, letter, sealed))
    return msgspec.json.encode(content) + b"\n"


@dead_letters.command()
@click.option(
    "--older-than", "days", type=click.IntRange(1), required=True, metavar="DAYS", help="Closed so many days ago or longer."
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def purge(*, days: int, yes: bool) -> None:
    """Remove closed dead letters for good. Open ones are never removed.

    Keep them for longer than a message may come again (two weeks in SQS): one that does would be a new dead letter. Needs the role
    stream_operator.
    """
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    older_than = datetime.now(UTC) - timedelta(days=days)
    _ask(f"Remove all that were closed before {older_than:%Y-%m-%dT%H:%M:%SZ}?", yes=yes)
    removed = 0
    with connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection, connection.cursor() as cursor:
        details = {"closed_before": older_than.isoformat()}
        why = f"closed {days} days ago or longer"
        record_action(cursor, queries, action="dead-letters purge", target="dead_letters", details=details, reason=why)
        while True:
            cursor.execute(queries["purge_dead_letters"], {"older_than": older_than, "most": PURGED_AT_A_TIME})
            row = cursor.fetchone()
            removed += 0 if row is None else row[0]
            if row is None or row[0] == 0:
                break
    if wants_json():
        show_json({"removed": removed})
    else:
        say(f"{removed} removed")


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody to ask here: add --yes")
    click.confirm(question, abort=True)
