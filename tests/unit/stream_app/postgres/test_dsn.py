import pytest

from pipeline.errors import SettingsError
from pipeline.settings import load
from stream_app.postgres.dsn import parse
from stream_app.postgres.settings import PostgresSettings


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("postgresql://user@db.example/logins?sslmode=verify-full", "db.example"),
        ("postgres://user:p%2Fw@[::1]:5433/logins", "::1"),
        ("host=/run/postgresql dbname=logins", "/run/postgresql"),
        ("postgresql://a,b:5432/logins", "a,b"),
    ],
)
def test_what_libpq_takes_is_taken(text: str, host: str) -> None:
    assert parse(text)["host"] == host


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("postgresql+psycopg2://u:hunter2@h/d", "it names a driver"),
        ("jdbc:postgresql://h/d?user=u&password=hunter2", "it is a JDBC URL"),
        ("mysql://u:hunter2@h/d", "does not begin with postgresql://"),
        ("postgresql:/u:hunter2@h/d", "does not begin with postgresql://"),
        ("POSTGRESQL://u:hunter2@h/d", "does not begin with postgresql://"),
        ("postgresql://u:hunter2@h/d?schema=public", "leave out schema=, which is Prisma's"),
        ("postgresql://u:hunter2@h/d?currentSchema=x", "leave out currentSchema=, which is JDBC's"),
        ("host=h schema=public", "leave out schema="),
        ("postgresql://u@h/d?a=b&hunter2=x", "libpq can't read it; expected"),
        ("'postgresql://u:hunter2@h/d'", "a space or a quotation mark"),
        ("postgresql://u:hunter2@h/d\n", "a space or a quotation mark"),
        ("db.example", "libpq can't read it; expected"),
        ("postgresql://u:hunter2/x@h/d", "libpq takes no such value of port"),
        ("postgresql://u@h:99999/d", "libpq takes no such value of port"),
    ],
)
def test_what_other_drivers_take_is_refused_at_once_with_the_right_form_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setenv("POSTGRES_DSN", text)
    with pytest.raises(SettingsError) as caught:
        load(PostgresSettings)
    says = str(caught.value)
    assert says.startswith("POSTGRES_DSN: libpq ")
    assert problem in says
    assert "expected postgresql://user@host/database" in says
    assert "hunter2" not in says
    assert "\n" not in says
    assert caught.value.__cause__ is None
