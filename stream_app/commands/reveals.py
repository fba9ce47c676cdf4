"""`faust -A stream_app reveals`: who opened masked values, when, why and how many."""

import click

from pipeline.settings import load
from stream_app.commands.command import Command, cli, json_option, named, say, show_json, show_table, wants_json
from stream_app.postgres.connection import PRIVACY_OFFICER, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

TITLES = ("id", "revealed_at", "who", "reason", "field", "tokens")


@cli.command(cls=Command)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, newest first.")
@json_option
def reveals(*, limit: int) -> None:
    """Who opened masked values, and why.

    The lines of reveal_audit; what was opened stands nowhere. Needs the role stream_privacy_officer, and no keyset.
    """
    settings = load(PostgresSettings)
    with (
        connect(settings, role=PRIVACY_OFFICER, application_name="stream_app reveals") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(load_queries("commands.sql", settings.postgres_schema)["newest_reveals"], {"limit": limit})
        rows = cursor.fetchall()
    if wants_json():
        show_json(named(TITLES, rows))
    elif rows:
        show_table(TITLES, rows)
    else:
        say("no value was revealed")
