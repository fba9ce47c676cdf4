"""TLS to Postgres, each refusal tried against a real server: the wrong CA, the wrong host name, no TLS at all."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from integration.certificate_authority import Authority
from integration.postgres_tls_front import PostgresTlsFront
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import RetryableError
from pipeline.settings import load
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.connection import connect
from stream_app.postgres.settings import PostgresSettings


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def wrong_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("wrong"), "wrong-authority")


@pytest.fixture
def front(postgres: Postgres, authority: Authority) -> Iterator[PostgresTlsFront]:
    """With a certificate for 127.0.0.1."""
    with PostgresTlsFront(postgres.port, *authority.issue("server", "127.0.0.1")) as started:
        yield started


@pytest.fixture(scope="module", autouse=True)
def role(postgres: Postgres) -> Iterator[str]:
    with closing(psycopg2.connect(postgres.dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE ROLE stream_test")
        yield "stream_test"
        connection.cursor().execute("DROP ROLE stream_test")


def settings_for(
    postgres: Postgres, front: PostgresTlsFront, mode: str, rootcert: Path | None, **others: object
) -> PostgresSettings:
    dsn = postgres.dsn.replace(f":{postgres.port}/", f":{front.port}/")
    return load(PostgresSettings, postgres_dsn=SecretStr(dsn), postgres_sslmode=mode, postgres_sslrootcert=rootcert, **others)


def connect_both_ways(settings: PostgresSettings) -> None:
    """As the commands do and as the worker does."""

    async def connect_and_close() -> None:
        await (await connect_async(settings, role="stream_test", application_name="test")).close()

    with connect(settings, role="stream_test", application_name="test"):
        pass
    asyncio.run(connect_and_close())


def refusals(settings: PostgresSettings) -> set[str]:
    """What each of the two ways says."""
    with pytest.raises(RetryableError) as caught, connect(settings, role="stream_test", application_name="test"):
        pass
    said = {str(caught.value)}
    with pytest.raises(RetryableError) as caught:
        asyncio.run(connect_async(settings, role="stream_test", application_name="test"))
    return {*said, str(caught.value)}


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_right_authority_and_host_name_are_accepted(
    postgres: Postgres, front: PostgresTlsFront, authority: Authority, mode: str
) -> None:
    connect_both_ways(settings_for(postgres, front, mode, authority.file))
    assert front.next_sessions(2) == ["TLSv1.3", "TLSv1.3"]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_wrong_authority_is_refused(postgres: Postgres, front: PostgresTlsFront, wrong_authority: Authority, mode: str) -> None:
    assert refusals(settings_for(postgres, front, mode, wrong_authority.file)) == {
        "Postgres's certificate does not chain to a CA in POSTGRES_SSLROOTCERT, or has expired"
    }
    assert front.next_sessions(2) == ["refused", "refused"]


def test_wrong_host_name_is_refused(postgres: Postgres, authority: Authority) -> None:
    with PostgresTlsFront(postgres.port, *authority.issue("elsewhere", "postgres.example")) as front:
        assert refusals(settings_for(postgres, front, "verify-full", authority.file)) == {
            "Postgres's certificate is for another host name than POSTGRES_DSN has"
        }
        connect_both_ways(settings_for(postgres, front, "verify-ca", authority.file))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_server_without_tls_is_refused(postgres: Postgres, authority: Authority, mode: str) -> None:
    settings = load(
        PostgresSettings, postgres_dsn=SecretStr(postgres.dsn), postgres_sslmode=mode, postgres_sslrootcert=authority.file
    )
    assert refusals(settings) == {"Postgres offers no TLS, and POSTGRES_SSLMODE requires it"}


def test_missing_authority_is_named(
    postgres: Postgres, front: PostgresTlsFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # libpq looks for one below it
    assert refusals(settings_for(postgres, front, "verify-full", None)) == {
        "there is no CA certificate to check Postgres's own with: set POSTGRES_SSLROOTCERT"
    }


def test_certificate_of_ours_is_shown_where_one_is_asked_for(postgres: Postgres, authority: Authority) -> None:
    certificate, key = authority.issue("worker")
    with PostgresTlsFront(postgres.port, *authority.issue("server", "127.0.0.1"), clients=authority.file) as front:
        connect_both_ways(
            settings_for(postgres, front, "verify-full", authority.file, postgres_sslcert=certificate, postgres_sslkey=key)
        )
        refusals(settings_for(postgres, front, "verify-full", authority.file))


def test_refused_password_is_said_at_once_also_where_libpq_tries_again_without_tls(
    postgres: Postgres, front: PostgresTlsFront, tmp_path: Path
) -> None:
    """With `prefer`, libpq goes on with a second socket; aiopg alone waits at the first one until its timeout."""
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("made-up")
    settings = settings_for(postgres, front, "prefer", None, postgres_password_file=password, postgres_connect_timeout_seconds=60)
    began = time.monotonic()
    (said,) = refusals(settings)
    assert said.endswith('(SQLSTATE 28P01); it says: password authentication failed for user "postgres"')
    assert time.monotonic() - began < 20
    assert front.next_sessions(6) == ["TLSv1.3", "plain"] * 3  # the command's connection asks a second time, for the code
