"""`faust -A stream_app dead-letters`: the records that could not become rows."""

import click

from pipeline.settings import load
from stream_app.commands.command import Group, cli, json_option, named, say, show_json, show_table, wants_json
from stream_app.postgres.connection import OPERATOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings
from stream_app.reasons import Reason

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
)


@cli.group(cls=Group, name="dead-letters")
def dead_letters() -> None:
    """The records that could not become rows."""


@dead_letters.command(name="list")
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Only those with this reason.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="At most so many, the newest.")
@json_option
def list_dead_letters(*, reason: str | None, limit: int) -> None:
    """How many of each reason, then the newest first. Never their content.

    Needs the role stream_operator.
    """
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    with (
        connect(settings, role=OPERATOR, application_name="stream_app dead-letters") as connection,
        connection.cursor() as cursor,
    ):
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
