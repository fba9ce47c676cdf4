"""Roles belong to the whole server: these tests need one where they are not there yet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import FatalError
from stream_app.postgres.migrations import known_migrations, migrate, state
from stream_app.postgres.settings import PostgresSettings

NAMES = [migration.name for migration in known_migrations()]


@pytest.fixture(scope="module")
def bare_server(servers_directory: Path) -> Iterator[Postgres]:
    with Postgres(servers_directory / "postgres-without-roles") as server:
        yield server


def run(settings: PostgresSettings) -> list[str]:
    said: list[str] = []
    migrate(settings, said.append)
    return said


def test_user_who_may_not_make_roles_is_told_what_to_ask_for(bare_server: Postgres) -> None:
    dsn = bare_server.create_database(name="owned")
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE plain LOGIN PASSWORD 'made-up'; ALTER DATABASE owned OWNER TO plain")
    plain = PostgresSettings(postgres_dsn=SecretStr(bare_server.dsn_of("owned", "plain", "made-up")))
    with pytest.raises(
        FatalError,
        match=r"^0005_roles: the role stream_writer is missing and plain may not create roles: "
        r"have a superuser run CREATE ROLE stream_writer NOLOGIN$",
    ):
        run(plain)
    assert [migration.name for migration in state(plain).pending] == NAMES[4:]


def test_databases_of_one_server_at_once_make_the_roles_once(bare_server: Postgres) -> None:
    databases = [PostgresSettings(postgres_dsn=SecretStr(bare_server.create_database())) for _ in range(6)]
    with ThreadPoolExecutor(len(databases)) as pool:
        said = list(pool.map(run, databases))
    assert [[line for line in lines if line.startswith("applied")] for lines in said] == [
        [f"applied {name}" for name in NAMES]
    ] * len(databases)
    assert [state(database).warnings for database in databases] == [()] * len(databases)
