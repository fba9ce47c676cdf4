"""`faust -A stream_app migrate`: create or upgrade the tables, roles and rights in Postgres."""

import click

from pipeline.settings import load
from stream_app.commands.command import Command, cli, say
from stream_app.postgres import migrations
from stream_app.postgres.settings import PostgresSettings


@cli.command(cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; end with exit code 1 if something is pending.")
@click.pass_context
def migrate(ctx: click.Context, *, check: bool) -> None:
    """Create or upgrade the tables in Postgres.

    Their roles and rights too. Safe to run twice, from two machines at once, and while workers run. POSTGRES_DSN's user needs the
    right to make tables and, the first time on a server, roles.
    """
    settings = load(PostgresSettings)
    if check:
        found = migrations.state(settings)
        for migration in found.pending:
            say(f"pending {migration.name}")
    else:
        found = migrations.migrate(settings, say)
    for name in found.unknown:
        say(f"applied by a newer version than this: {name}")
    if found.open_schema is not None:
        right = f"CREATE ON SCHEMA {found.open_schema}"
        say(
            f"every login may make functions and tables in the schema {found.open_schema}, which can lead other roles' statements "
            f"astray; as its owner: GRANT {right} TO the login that migrates, then REVOKE {right} FROM PUBLIC",
            to_stderr=True,
        )
    if check and found.pending:
        ctx.exit(1)
    say("the database is up to date")
