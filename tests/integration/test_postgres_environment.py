"""libpq's own variables, on a real server: a session is what our settings say, whatever stands there."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline import foreign_variables
from pipeline.settings import load
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.connection import WRITER, connect
from stream_app.postgres.settings import PostgresSettings

PROJECT = Path(__file__).parents[2]

FOREIGN = {
    "PGTZ": "Asia/Tokyo",  # libpq would let these three go over the session's own settings
    "PGDATESTYLE": "German",
    "PGGEQO": "off",
    "PGOPTIONS": "-c role=postgres -c search_path=elsewhere -c default_transaction_isolation=serializable",
    "PGSSLMODE": "verify-full",  # and fill from these what POSTGRES_DSN leaves open
    "PGTARGETSESSIONATTRS": "standby",
    "PGHOSTADDR": "192.0.2.1",
    "PGSERVICE": "elsewhere",
    "PGREQUIREAUTH": "gss",
    "PGCLIENTENCODING": "LATIN1",
    "PGAPPNAME": "elsewhere",
}

SESSION = (
    "SELECT current_setting('TimeZone'), current_setting('DateStyle'), current_setting('geqo'), current_user,"
    " current_setting('default_transaction_isolation'), current_setting('client_encoding'), current_setting('application_name')"
)


@pytest.fixture
def settings(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> PostgresSettings:
    monkeypatch.setattr(foreign_variables, "_shut_out", set())
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    return load(PostgresSettings, postgres_dsn=SecretStr(migrated_database))


def expected() -> tuple[Any, ...]:
    return ("UTC", "ISO, MDY", "on", WRITER, "read committed", "UTF8", "test")


def test_a_commands_session_is_what_the_settings_say(settings: PostgresSettings) -> None:
    with connect(settings, role=WRITER, application_name="test") as connection, connection.cursor() as cursor:
        cursor.execute(SESSION)
        assert cursor.fetchone() == expected()


async def test_a_workers_session_is_what_the_settings_say(settings: PostgresSettings) -> None:
    connection = await connect_async(settings, role=WRITER, application_name="test")
    async with connection.cursor() as cursor:
        await cursor.execute(SESSION)
        assert await cursor.fetchone() == expected()
    await connection.close()


def test_a_command_says_which_it_did_not_read_and_works(migrated_database: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "stream_app", "migrate", "--check"],
        cwd=PROJECT,
        env={"PATH": "", "POSTGRES_DSN": migrated_database, "APP_VERSION": "1.2.3", "BROKER_URL": "kafka://192.0.2.1", **FOREIGN},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "in the schema public\nthe database is up to date\n")
    assert result.stderr.startswith(f"{', '.join(sorted(FOREIGN))}: not read; POSTGRES_DSN and POSTGRES_… say how to connect\n")
    assert all(value not in result.stderr for value in FOREIGN.values() if len(value) > 3)
