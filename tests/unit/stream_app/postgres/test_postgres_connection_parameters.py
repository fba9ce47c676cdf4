"""What libpq is told, from the settings."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.settings import load
from stream_app.postgres.connection import WRITER, connection_parameters
from stream_app.postgres.settings import PostgresSettings

SECRET = "not-to-be-seen"


def parameters(dsn: str, role: str | None = WRITER, **others: object) -> dict[str, str]:
    settings = load(PostgresSettings, postgres_dsn=SecretStr(dsn), **others)
    return connection_parameters(settings, role=role, application_name="test")


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:pw@h:5433/d?sslmode=require", "host=h port=5433 user=u password=pw dbname=d sslmode=require"]
)
def test_dsn_may_be_an_url_or_keywords(dsn: str) -> None:
    given = parameters(dsn)
    assert {name: given[name] for name in ("host", "port", "user", "password", "dbname", "sslmode")} == {
        "host": "h", "port": "5433", "user": "u", "password": "pw", "dbname": "d", "sslmode": "require",
    }  # fmt: skip


def test_role_and_timeout_hold_from_the_first_moment_and_over_the_dsn() -> None:
    options = parameters("host=h options='-c role=postgres -c search_path=mine'", postgres_statement_timeout_seconds=1.5)["options"]
    assert options.startswith("-c role=postgres -c search_path=mine ")
    assert options.endswith(
        "-c statement_timeout=1500 -c jit=off -c enable_seqscan=off -c role=stream_writer -c search_path=pg_catalog,pg_temp"
    )
    assert r"-c default_transaction_isolation=read\ committed" in options


def test_without_a_role_statements_may_take_their_time() -> None:
    options = parameters("host=h", role=None)["options"]
    assert "role=" not in options
    assert options.endswith("-c statement_timeout=0 -c row_security=off -c search_path=pg_catalog,pg_temp")


def test_silent_connection_is_given_up_after_the_set_time() -> None:
    given = parameters("host=h", postgres_silence_seconds=30)
    assert int(given["keepalives_idle"]) + int(given["keepalives_interval"]) * int(given["keepalives_count"]) in range(28, 31)
    assert given["tcp_user_timeout"] == "30000"


def test_dsn_has_the_word_over_our_defaults_and_settings_over_the_dsn(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    given = parameters(
        "host=h connect_timeout=3 sslmode=disable sslrootcert=/other", postgres_sslmode="verify-full", postgres_sslrootcert=ca
    )
    assert given["connect_timeout"] == "3"
    assert given["sslmode"] == "verify-full"
    assert given["sslrootcert"] == str(ca)


def test_password_file_has_the_last_word_and_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text("first\n")
    settings = load(PostgresSettings, postgres_dsn=SecretStr("host=h password=other"), postgres_password_file=file)
    assert connection_parameters(settings, role=None, application_name="test")["password"] == "first"
    file.write_text("second\n")
    assert connection_parameters(settings, role=None, application_name="test")["password"] == "second"
    file.unlink()
    with pytest.raises(SettingsError, match=r"^POSTGRES_PASSWORD_FILE: can't read the file it names"):
        connection_parameters(settings, role=None, application_name="test")


def test_password_is_not_shown() -> None:
    dsn = f"postgresql://u:{SECRET}@h/d"
    settings = load(PostgresSettings, postgres_dsn=SecretStr(dsn))
    given = connection_parameters(settings, role=None, application_name="test")
    assert given["password"] == SECRET
    for shown in (repr(settings), str(settings), repr(given), str(given), f"{given}"):
        assert SECRET not in shown


def test_missing_dsn_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^POSTGRES_DSN: not set"):
        connection_parameters(PostgresSettings(), role=None, application_name="test")


@pytest.mark.parametrize(
    "dsn", [f"host=h {SECRET}", f"password='{SECRET}", f"host=h {SECRET}=1", f"postgresql://u:p%zz{SECRET}@h/d"]
)
def test_malformed_dsn_is_named_and_not_quoted(dsn: str) -> None:
    with pytest.raises(SettingsError, match=r"^POSTGRES_DSN: libpq can't read it") as caught:
        parameters(dsn)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSTGRES_SSLROOTCERT", str(tmp_path / "absent.pem"))
    with pytest.raises(SettingsError, match=r"^POSTGRES_SSLROOTCERT: "):
        load(PostgresSettings)
