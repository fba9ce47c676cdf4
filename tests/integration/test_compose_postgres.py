"""What docker-compose's Postgres runs when it makes its database, on a real Postgres: two logins and their rights."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import SecretStr

from dev_servers.postgres import Postgres, program
from stream_app.postgres.connection import MONITOR, WRITER, connect
from stream_app.postgres.migrations import migrate
from stream_app.postgres.settings import PostgresSettings

PROJECT = Path(__file__).parents[2]
ROLES = PROJECT / "docker" / "postgres-roles.sql"
SERVICES: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def compose_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresSettings]:
    """A server of its own, for roles belong to a server: made as compose's, migrated as its superuser; the worker's settings."""
    directory = tmp_path_factory.mktemp("compose-postgres")
    password = directory / "worker-password"
    password.touch(mode=0o600)
    password.write_text("made-up-'worker'-password\n")
    statements = re.sub(r"/secrets/database/(worker|monitor)", str(password), ROLES.read_text())
    with Postgres(directory / "server") as server:
        database = server.create_database(name="login_stream")
        subprocess.run(
            [program("psql"), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-q", "-d", database], input=statements, text=True, check=True
        )
        migrate(PostgresSettings(postgres_dsn=database), lambda _: None)
        given = parse_dsn(SERVICES["worker"]["environment"]["POSTGRES_DSN"])
        dsn = make_dsn(**{**given, "host": "127.0.0.1", "port": str(server.port)})
        yield PostgresSettings(postgres_dsn=dsn, postgres_password_file=password)


def test_the_worker_logs_in_by_its_password_file_and_takes_the_writers_role(compose_postgres: PostgresSettings) -> None:
    with connect(compose_postgres, role=WRITER, application_name="test") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT session_user, current_user")
        assert cursor.fetchone() == ("worker", WRITER)
        cursor.execute(
            "INSERT INTO public.stream_positions (consumer_group, topic, partition, next_offset, epoch, owner)"
            " VALUES ('group', 'logins', 0, 0, 1, 'test')"
        )


def test_the_monitor_logs_in_and_sees_counts_only(compose_postgres: PostgresSettings) -> None:
    assert compose_postgres.postgres_dsn is not None
    dsn = make_dsn(**{**parse_dsn(compose_postgres.postgres_dsn.get_secret_value()), "user": "monitor"})
    monitor = compose_postgres.model_copy(update={"postgres_dsn": SecretStr(dsn)})
    with connect(monitor, role=MONITOR, application_name="test") as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT session_user, current_user, (SELECT count(*) FROM (SELECT reason FROM public.dead_letters) AS letters)"
        )
        assert cursor.fetchone() == ("monitor", MONITOR, 0)


@pytest.mark.parametrize(
    "statement",
    ["SELECT masked_ip FROM public.user_logins", "DROP TABLE public.dead_letters", "SELECT sealed FROM public.dead_letters"],
)
def test_the_worker_may_not_read_what_it_wrote_or_change_a_table(statement: str, compose_postgres: PostgresSettings) -> None:
    assert compose_postgres.postgres_dsn is not None
    assert compose_postgres.postgres_password_file is not None
    connection = psycopg2.connect(
        compose_postgres.postgres_dsn.get_secret_value(), password=compose_postgres.postgres_password_file.read_text().strip()
    )
    with connection, connection.cursor() as cursor, pytest.raises(InsufficientPrivilege):
        cursor.execute(statement)
    connection.close()
