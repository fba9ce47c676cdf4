"""TLS to Postgres, each refusal tried against a real server: the wrong CA, the wrong host name, no TLS at all."""

import asyncio
import ipaddress
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from postgres_tls_front import PostgresTlsFront
from pydantic import SecretStr

from dev_servers.postgres import Postgres
from pipeline.errors import RetryableError
from pipeline.settings import load
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.connection import connect
from stream_app.postgres.settings import PostgresSettings


@dataclass(frozen=True)
class Authority:
    """A certificate authority made for a test."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        key, certificate = _issue(self.name, None, (), is_authority=True)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_certificate", certificate)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def file(self) -> Path:
        return self.directory / f"{self.name}.crt"

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Certificate and key for a host or a user."""
        key, certificate = _issue(name, (self._key, self._certificate), hosts, is_authority=False)  # type: ignore[attr-defined]
        certificate_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate_file, key_file


def _issue(
    name: str,
    issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None,
    hosts: tuple[str, ...],
    *,
    is_authority: bool,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[1].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if hosts:
        names: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return key, builder.sign(key if issuer is None else issuer[0], hashes.SHA256())


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
    assert front.sessions == ["TLSv1.3", "TLSv1.3"]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_wrong_authority_is_refused(postgres: Postgres, front: PostgresTlsFront, wrong_authority: Authority, mode: str) -> None:
    assert refusals(settings_for(postgres, front, mode, wrong_authority.file)) == {
        "Postgres's certificate does not chain to a CA in POSTGRES_SSLROOTCERT, or has expired"
    }
    assert front.sessions == ["refused", "refused"]


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
    monkeypatch.setenv("PGSSLROOTCERT", str(tmp_path / "absent.crt"))
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
    password.write_text("made-up")
    settings = settings_for(postgres, front, "prefer", None, postgres_password_file=password, postgres_connect_timeout_seconds=60)
    began = time.monotonic()
    (said,) = refusals(settings)
    assert said == 'Postgres refuses the connection: password authentication failed for user "postgres"'
    assert time.monotonic() - began < 20
    assert front.sessions == ["TLSv1.3", "plain"] * 2
