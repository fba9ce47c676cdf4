"""What a new session is asked and told, on servers of all versions, and where the tables may be."""

import pytest

from pipeline.errors import FatalError, SettingsError
from pipeline.settings import load
from stream_app.postgres.connection import WRITER
from stream_app.postgres.errors import _FUNCTION
from stream_app.postgres.queries import load_queries, with_schema
from stream_app.postgres.session import Rows, open_session
from stream_app.postgres.settings import PostgresSettings

SHIPPED = ("error", "default", "none", "-1", "-1", "0")
PATH = "pg_catalog,pg_temp"


def opened(*answers: Rows, role: str | None = WRITER, version: int = 180_000) -> tuple[tuple[str, ...], list[str]]:
    """What comes of a session that answers so, and how many statements it was asked."""
    steps = open_session(role, "public", version)
    asked = [next(steps)]
    for answer in answers:
        try:
            asked.append(steps.send(answer))
        except StopIteration as end:
            return end.value, asked
    raise AssertionError("it asks more")


def first(path: str = PATH, user: str = WRITER, superuser: str = "off", settings: tuple[str, ...] = SHIPPED) -> Rows:
    return [(user, path, superuser, *settings)]


def test_role_and_path_are_asked_for_before_anything_else_with_qualified_names() -> None:
    asked = next(open_session(WRITER, "public", 180_000))
    assert asked.count("pg_catalog.current_setting(") == asked.count("(")
    assert "=" not in asked


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (first(user="postgres"), "did not take the role stream_writer: does a pooler"),
        (first(path='"$user", public'), "did not take the search path pg_catalog,pg_temp: does a pooler"),
        (first(path="public,pg_catalog,pg_temp"), "did not take the search path"),
        (first(path=""), "did not take the search path"),
    ],
)
def test_another_session_than_was_asked_for_is_refused(answer: Rows, says: str) -> None:
    with pytest.raises(FatalError, match=says):
        opened(answer)


def test_a_pooler_may_write_the_path_in_another_way() -> None:
    assert opened(first("pg_catalog, pg_temp"), [("public",)], [("panic", "terse")])[0] == ()


@pytest.mark.parametrize("version", [150_000, 180_004])
def test_rows_are_kept_out_of_the_log_where_the_role_may_say_so(version: int) -> None:
    left, asked = opened(first(), [("public",)], [("panic", "terse")], version=version)
    assert (left, len(asked)) == ((), 3)
    assert asked[-1].count("has_parameter_privilege") == 2
    left, _ = opened(first(), [("public",)], [("error", "terse")], version=version)
    assert left == ("log_min_error_statement=error",)


def test_before_postgres_15_a_superuser_alone_may_say_so() -> None:
    left, asked = opened(first(), [("public",)], version=140_020)
    assert (left, len(asked)) == (("log_min_error_statement=error", "log_error_verbosity=default"), 2)
    left, asked = opened(first(superuser="on", user="postgres"), [("panic", "terse")], role=None, version=140_020)
    assert (left, len(asked)) == ((), 2)
    assert "privilege" not in asked[-1]


@pytest.mark.parametrize("version", [140_020, 180_004])
def test_a_session_that_is_quiet_is_told_nothing(version: int) -> None:
    quiet = first(settings=("panic", "terse", "ddl", "-1", "-1", "0"))
    assert opened(quiet, [], version=version)[0] == ()


def test_settings_that_log_what_succeeds_are_seen() -> None:
    talking = first(settings=("panic", "terse", "mod", "500ms", "0", "0.1"))
    assert opened(talking, [])[0] == (
        "log_statement=mod",
        "log_min_duration_statement=500ms",
        "log_min_duration_sample=0",
        "log_transaction_sample_rate=0.1",
    )


def test_tables_may_be_nowhere_yet_or_in_the_schema_and_not_only_elsewhere() -> None:
    for found in ([], [("public",)], [("other",), ("public",)]):
        opened(first(), found, [("panic", "terse")])
    with pytest.raises(
        FatalError, match=r"^POSTGRES_SCHEMA is public, and the tables are in the schema other: set POSTGRES_SCHEMA="
    ):
        opened(first(), [("other",)])


@pytest.mark.parametrize("name", ["public", "login_stream", "Login-Stream", "_a", "a$b", "größe", "a" * 63])
def test_a_schema_may_have_any_plain_name(name: str) -> None:
    assert load(PostgresSettings, postgres_schema=name).postgres_schema == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a" * 64, "63 bytes at most"),
        ("ß" * 32, "63 bytes at most"),
        ('a"b', "expected letters"),
        ("a'b", "expected letters"),
        ("a%b", "expected letters"),
        ("a.b", "expected letters"),
        ("1a", "expected letters"),
        ("a b", "expected letters"),
        ("a\n", "expected letters"),
        ("pg_catalog", "Postgres's own"),
        ("pg_mine", "Postgres's own"),
        ("information_schema", "Postgres's own"),
    ],
)
def test_a_schema_that_postgres_would_not_take_as_it_stands_is_refused(name: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"^POSTGRES_SCHEMA: .*{says}"):
        load(PostgresSettings, postgres_schema=name)


def test_the_schema_stands_in_statements_as_a_name_and_as_a_text() -> None:
    assert (
        with_schema("""SELECT :'schema' FROM :"schema".t WHERE a::text""", "Mine")
        == """SELECT 'Mine' FROM "Mine".t WHERE a::text"""
    )


@pytest.mark.parametrize("file", ["worker.sql", "preflight.sql", "commands.sql", "monitor.sql", "session.sql", "migrate.sql"])
def test_nothing_is_left_to_put_in(file: str) -> None:
    for statement in load_queries(file, "public").values():
        assert 'schema"' not in statement.replace('"public"', "")
        assert ":'" not in statement


@pytest.mark.parametrize(
    ("context", "name"),
    [
        ("PL/pgSQL function f() line 1 at SQL statement", "f"),
        ('PL/pgSQL function "See it"(text,integer) line 3 at SQL statement', '"See it"'),
        ('PL/pgSQL-Funktion audit."F"() Zeile 1 bei SQL-Anweisung', 'audit."F"'),
        ("функция PL/pgSQL s.f(), строка 1, оператор SQL-оператор", "s.f"),
        ('SQL function "h" during inlining', "h"),
        ("SQL statement \"SELECT 'a-user-not-to-be-seen'\"", None),
        ("SQL statement \"SELECT 'PL/pgSQL function value() line 1'\"\nPL/pgSQL function f() line 1 at EXECUTE", None),
        ("unnamed portal", None),
    ],
)
def test_the_function_that_an_error_comes_from_is_known_by_its_context(context: str, name: str | None) -> None:
    found = _FUNCTION.match(context)
    assert (None if found is None else found[1] or found[2]) == name
