"""`faust -A stream_app positions`: where each partition stands, and the way to set it after a topic was made anew."""

import sys
from typing import Any

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError
from pipeline.printable import printable
from pipeline.settings import load
from stream_app.commands.command import Group, cli, json_option, named, say, show_json, show_table, wants_json
from stream_app.postgres.connection import OPERATOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

TITLES = ("consumer_group", "topic", "partition", "next_offset", "epoch", "owner", "updated_at")
APPLICATION_NAME = "stream_app positions"


@cli.group(cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def positions(ctx: click.Context) -> None:
    """Where each partition stands.

    The next offset that will be read, and who owns the partition. Needs the role stream_operator.
    """
    if ctx.invoked_subcommand is not None:
        return
    settings = load(PostgresSettings)
    with (
        connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(load_queries("commands.sql", settings.postgres_schema)["all_positions"])
        rows = cursor.fetchall()
    if wants_json():
        show_json(named(TITLES, rows))
    elif rows:
        show_table(TITLES, rows)
    else:
        say("no partition was claimed yet")


@positions.command()
@click.option("--topic", required=True, help="The topic.")
@click.option("--partition", type=click.IntRange(min=0), required=True, help="The partition.")
@click.option("--to", "next_offset", type=click.IntRange(min=0), required=True, help="The next offset to read.")
@click.option("--group", "consumer_group", help="The consumer group; needed only if several keep a position for the partition.")
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(*, topic: str, partition: int, next_offset: int, consumer_group: str | None, yes: bool) -> None:
    """Set one position, for a topic that was made anew. Shows what it will do and asks.

    A worker that holds the partition is fenced and claims it anew. Needs the role stream_operator.
    """
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    place = {"consumer_group": consumer_group, "topic": topic, "partition": partition}
    with (
        connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(queries["positions_of_partition"], place)
        row = _only(cursor, topic, partition)
        show_table(TITLES, [row])
        say(_what_it_means(before=row[3], after=next_offset))
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody to ask here: add --yes")
            click.confirm(f"Set next_offset to {next_offset}?", abort=True)
        cursor.execute(
            queries["reset_position"],
            {**place, "consumer_group": row[0], "next_offset": next_offset, "found_next_offset": row[3]},
        )
        changed = cursor.fetchone()
    if changed is None:
        raise FatalError("a worker has moved the position in between; nothing was changed: look again")
    say(f"{topic}/{partition} of {row[0]}: next_offset {changed[0]}, epoch {changed[1]}")


def _only(cursor: Cursor, topic: str, partition: int) -> tuple[Any, ...]:
    rows = cursor.fetchall()
    if not rows:
        raise FatalError(f"no position is stored for {topic}/{partition}: a worker begins where its log does")
    if len(rows) > 1:
        raise click.UsageError(
            f"{len(rows)} consumer groups keep a position for it: add --group {' or '.join(printable(row[0]) for row in rows)}"
        )
    return rows[0]


def _what_it_means(before: int, after: int) -> str:
    if after < before:
        return f"Records {after} to {before - 1} will be read again; those that are in the tables stay as they are."
    if after > before:
        return f"Records {before} to {after - 1} will not be read: they become no rows."
    return "The position stays; whoever holds the partition has to claim it anew."
