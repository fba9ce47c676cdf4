"""`faust -A stream_app migrate`: create or upgrade the tables, roles and rights in Postgres."""

import click

from pipeline.settings import load
from stream_app.commands.command import Command, cli, say, say_error
from stream_app.postgres import migrations
from stream_app.postgres.settings import PostgresSettings


@cli.command(cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; end with exit code 1 if something is pending or stops the stream.")
@click.pass_context
def migrate(ctx: click.Context, *, check: bool) -> None:
    """Create or upgrade the tables in Postgres.

    Their roles and rights too. Safe to run twice, from two machines at once, and while workers run. POSTGRES_DSN's user needs the
    right to make tables and, the first time on a server, roles. They are in the schema POSTGRES_SCHEMA, which it makes where it is
    missing. On standard error it tells what a superuser or an owner should change, with the statements; what stops the stream, a
    column that demands a value it does not have for one, begins with Error and makes the exit code 1.
    """
    settings = load(PostgresSettings)
    say(f"in the schema {settings.postgres_schema}")
    if check:
        found = migrations.state(settings)
        for migration in found.pending:
            say(f"pending {migration.name}")
    else:
        found = migrations.migrate(settings, say)
    for name in found.unknown:
        say(f"applied by a newer version than this: {name}")
    for warning in found.warnings:
        say(warning, to_stderr=True)
    for error in found.errors:
        say_error(f"no row can be written: {error}")
    if (check and found.pending) or found.errors:
        ctx.exit(1)
    say("the database is up to date")
