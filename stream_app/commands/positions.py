"""`faust -A stream_app positions`: where each partition stands, and what may be done to that by hand, each with a line about it."""

import json
import sys
from typing import Any

import click
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

from pipeline.errors import FatalError
from pipeline.printable import printable
from pipeline.settings import load
from stream_app.commands.audit import check_reason
from stream_app.commands.command import Group, cli, json_option, named, say, show_json, show_table, wants_json
from stream_app.postgres.connection import OPERATOR, connect
from stream_app.postgres.queries import load_queries
from stream_app.postgres.settings import PostgresSettings

TITLES = ("consumer_group", "topic", "partition", "next_offset", "epoch", "owner", "updated_at")
ACTION_TITLES = ("acted_at", "who", "action", "target", "details", "reason")
APPLICATION_NAME = "stream_app positions"

_reason = click.option("--reason", required=True, help="Why; kept in operator_actions with your name and the time.")


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
@_reason
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(*, topic: str, partition: int, next_offset: int, consumer_group: str | None, reason: str, yes: bool) -> None:
    """Set one position, for a topic that was made anew. Shows what it will do and asks.

    A worker that holds the partition is fenced and claims it anew. Needs the role stream_operator.
    """
    reason = check_reason(reason)
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
            _ask(f"Set next_offset to {next_offset}?")
        cursor.execute(
            queries["reset_position"],
            {
                **place,
                "consumer_group": row[0],
                "next_offset": next_offset,
                "found_next_offset": row[3],
                "details": json.dumps({"from": row[3], "to": next_offset, "skipped": max(0, next_offset - row[3])}),
                "reason": reason,
            },
        )
        changed = cursor.fetchone()
    if changed is None:
        raise FatalError("a worker has moved the position in between; nothing was changed: look again")
    say(f"{topic}/{partition} of {row[0]}: next_offset {changed[0]}, epoch {changed[1]}")


@positions.command()
@click.option("--topic", required=True, help="The topic.")
@click.option("--from", "other_group", required=True, help="The consumer group whose positions are taken.")
@click.option("--group", "consumer_group", required=True, help="The consumer group that goes on from there; it has none yet.")
@_reason
@click.option("--yes", is_flag=True, help="Don't ask.")
def adopt(*, topic: str, other_group: str, consumer_group: str, reason: str, yes: bool) -> None:
    """Let a consumer group begin where another one stands, for a group that got a new name.

    Stop the workers of the other group first: they would go on beside the new ones, and each message would be read twice, though
    written once. Needs the role stream_operator.
    """
    reason = check_reason(reason)
    settings = load(PostgresSettings)
    queries = load_queries("commands.sql", settings.postgres_schema)
    given = {"topic": topic, "other_group": other_group, "consumer_group": consumer_group, "reason": reason}
    with (
        connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(queries["all_positions"])
        rows = [row for row in cursor.fetchall() if row[1] == topic and row[0] in (other_group, consumer_group)]
        if any(row[0] == consumer_group for row in rows):
            raise FatalError(f"{consumer_group} has positions for {topic} already; `positions reset` sets them")
        if not rows:
            raise FatalError(f"{other_group} has no position for {topic}")
        show_table(TITLES, rows)
        if not yes:
            _ask(f"Let {consumer_group} begin there?")
        cursor.execute(queries["adopt_positions"], given)
        adopted = cursor.fetchall()
    if not adopted:
        raise FatalError(f"a worker of {consumer_group} was quicker; nothing was changed: look again")
    say(f"{consumer_group} begins at {', '.join(f'{topic}/{partition}: {offset}' for partition, offset in adopted)}")


@positions.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many, the newest first.")
@json_option
def history(*, limit: int) -> None:
    """What was done to positions by hand, by whom and why. Needs the role stream_operator."""
    settings = load(PostgresSettings)
    with (
        connect(settings, role=OPERATOR, application_name=APPLICATION_NAME) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            load_queries("commands.sql", settings.postgres_schema)["operator_actions"], {"action": "positions ", "limit": limit}
        )
        rows = cursor.fetchall()
    if wants_json():
        show_json(named(ACTION_TITLES, rows))
    elif rows:
        show_table(ACTION_TITLES, rows)
    else:
        say("nothing was done to positions by hand")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody to ask here: add --yes")
    click.confirm(question, abort=True)


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
