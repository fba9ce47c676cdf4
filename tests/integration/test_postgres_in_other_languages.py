"""A server that speaks German or Russian, in any encoding, is understood as an English one: by its codes."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

import pytest
from click.testing import Result
from integration.refusing_postgres import Bytes, Words, refusing
from pydantic import SecretStr

from pipeline.errors import FatalError, PipelineError, RetryableError, cause_code
from stream_app.postgres.async_connection import connect_async
from stream_app.postgres.connection import MONITOR, WRITER, connect
from stream_app.postgres.errors import RoleMissingError, retry_class
from stream_app.postgres.pool import ConnectionPool
from stream_app.postgres.preflight import TablesPendingError, WriterPreflight
from stream_app.postgres.settings import PostgresSettings

PASSWORD = "made-up"

GERMAN = "Passwort-Authentifizierung für Benutzer »x« fehlgeschlagen"
RUSSIAN = 'пользователь "x" не прошёл проверку подлинности (по паролю)'
STARTS = "система баз данных запускается"

WRONG_PASSWORD = [
    Words("FATAL", "28P01", GERMAN, "utf-8"),
    Words("FATAL", "28P01", GERMAN, "latin-1"),
    Words("ВАЖНО", "28P01", RUSSIAN, "utf-8"),
    Words("ВАЖНО", "28P01", RUSSIAN, "koi8-r"),
    Words("ВАЖНО", "28P01", RUSSIAN, "cp1251"),
]
PASSING = [
    Words("FATAL", "57P03", "das Datenbanksystem startet", "utf-8", "ProcessStartupPacket", after_password=False),
    Words("ВАЖНО", "57P03", STARTS, "koi8-r", "ProcessStartupPacket", after_password=False),
    Words(
        "FATAL",
        "53300",
        "tut mir leid, schon zu viele Verbindungen für »x«",
        "latin-1",
        "ProcessStartupPacket",
        after_password=False,
    ),
    Words("ВАЖНО", None, "сервер не сообщает кода", "koi8-r", after_password=False),
]


def settings_for(port: int) -> PostgresSettings:
    return PostgresSettings(
        postgres_dsn=SecretStr(f"postgresql://x:{PASSWORD}@127.0.0.1:{port}/d"), postgres_connect_timeout_seconds=60
    )


def refusals(words: Words | Bytes) -> list[PipelineError]:
    """What the workers' connection says, and that of monitor and commands."""
    with refusing(words) as port:
        settings = settings_for(port)
        with pytest.raises(PipelineError) as ours:
            asyncio.run(connect_async(settings, role=WRITER, application_name="t"))
        with pytest.raises(PipelineError) as theirs, connect(settings, role=MONITOR, application_name="t"):
            pass
    found = [ours.value, theirs.value]
    assert len({str(error) for error in found}) == 1
    assert PASSWORD not in str(found[0])
    return found


@pytest.mark.parametrize("words", WRONG_PASSWORD, ids=lambda words: f"{words.message[:3]} {words.encoding}")
def test_a_wrong_password_is_a_refused_login(words: Words) -> None:
    for error in refusals(words):
        assert isinstance(error, RetryableError)
        assert retry_class(error) == "28"
        assert cause_code(error) == "28P01"
        assert "check user and password of POSTGRES_DSN, POSTGRES_PASSWORD_FILE (SQLSTATE 28P01)" in str(error)
        assert (words.message in str(error)) is (words.encoding == "utf-8")


@pytest.mark.parametrize("words", PASSING, ids=lambda words: f"{words.code} {words.encoding}")
def test_what_passes_is_waited_for(words: Words) -> None:
    """psycopg2 raises no error of its own for words in another encoding: that was taken for a parameter that can't be sent."""
    for error in refusals(words):
        assert type(error) is RetryableError
        assert retry_class(error) == ("none" if words.code is None else words.code[:2])


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        (Words("ВАЖНО", "3D000", 'база данных "d" не существует', "koi8-r", "InitPostgres"), FatalError, "correct POSTGRES_DSN"),
        (Words("ВАЖНО", "22023", 'роль "stream_x" не существует', "cp1251", "call_string_check_hook"), RoleMissingError, "migrate"),
        (Words("FATAL", "42501", "keine Berechtigung, um Rolle »stream_x« zu setzen", "utf-8"), FatalError, "no member"),
        (
            Words("FATAL", "42501", "keine Berechtigung für Datenbank »d«", "latin-1", "CheckMyDatabase"),
            RetryableError,
            "GRANT CONNECT",
        ),
    ],
)
def test_what_is_missing_is_told_by_code_and_name(words: Words, kind: type[PipelineError], says: str) -> None:
    for error in refusals(words):
        assert type(error) is kind
        assert says in str(error)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        *((words, FatalError) for words in WRONG_PASSWORD),
        *((words, RetryableError) for words in PASSING),
        (Words("ВАЖНО", "22023", 'роль "stream_writer" не существует', "koi8-r"), TablesPendingError),
    ],
    ids=lambda each: f"{each.code} {each.encoding}" if isinstance(each, Words) else each.__name__,
)
async def test_a_worker_ends_or_waits_at_its_start(words: Words, kind: type[PipelineError]) -> None:
    with refusing(words) as port:
        pool = ConnectionPool(settings_for(port), role=WRITER, application_name="t", size=1)
        preflight = WriterPreflight(pool, cast("Any", None))  # the writer is for later steps
        with pytest.raises(kind) as caught:
            await preflight.session()
        await pool.close()
    assert type(caught.value) is kind


@pytest.mark.parametrize("words", [*WRONG_PASSWORD, PASSING[-1]], ids=lambda words: f"{words.code} {words.encoding}")
def test_migrate_says_one_line(command: Callable[..., Result], words: Words) -> None:
    with refusing(words) as port:
        result = command("migrate", POSTGRES_DSN=f"postgresql://x:{PASSWORD}@127.0.0.1:{port}/d")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: Postgres refuses the connection")
    assert PASSWORD not in line


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\0\xff" * 500, id="garbage"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(Words("FATAL", "28P01", GERMAN, "utf-8").response()[:12], id="cut off"),
        pytest.param(Words("FATAL", "28P01", "m" * 20_000_000, "utf-8").response(), id="too long"),
        pytest.param(b"E\x7f\xff\xff\xffS", id="claims two gigabytes"),
        pytest.param(b"E\xff\xff\xff\xfb", id="of a negative length"),
        pytest.param(b"E\0\0\0\5\0", id="without a field"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_no_postgres_says_is_a_connection_that_failed(content: bytes) -> None:
    for error in refusals(Bytes(content)):
        assert type(error) is RetryableError


def test_a_process_with_many_files_open_is_told_the_code_too() -> None:
    many = [os.dup(0) for _ in range(1_100)]
    try:
        for error in refusals(WRONG_PASSWORD[0]):
            assert cause_code(error) == "28P01"
    finally:
        for each in many:
            os.close(each)
