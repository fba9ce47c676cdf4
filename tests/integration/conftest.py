"""A migrated database for each test that asks for one: a copy, which is quicker than migrating again."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from stream_app.commands.command import cli
from stream_app.postgres.migrations import migrate
from stream_app.postgres.settings import PostgresSettings


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """The name of a database to copy from."""
    dsn = postgres.create_database()
    migrate(PostgresSettings(postgres_dsn=SecretStr(dsn)), lambda _: None)
    return dsn.rpartition("/")[2]


@pytest.fixture
def migrated_database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """The superuser's DSN of a database with the tables and roles, empty, dropped after the test."""
    dsn = postgres.create_database(template=migrated_template)
    yield dsn
    postgres.drop_database(dsn)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command of Faust's command line in this process: ``command("migrate", "--check", POSTGRES_DSN=dsn)``."""

    def run(*arguments: str, standard_input: str | None = None, **environment: str) -> Result:
        import stream_app.commands  # noqa: F401, PLC0415 - they register themselves

        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(cli, list(arguments), input=standard_input)

    return run
