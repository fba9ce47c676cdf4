"""The runbook's SQL, each step as the login that it names: taken from the page, run by a member of that role alone."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from textwrap import dedent

import psycopg2
import pytest
from click.testing import Result
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names its class like a module
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from dev_servers.postgres import Postgres

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
BLOCKS: list[tuple[str, str]] = [
    (found["role"], dedent(found["indent"] + found["sql"]))
    for found in re.finditer(
        r"^(?P<indent> +)-- as (?P<role>.+)\n(?P=indent)(?P<sql>.+\n(?:(?P=indent).+\n)*)", RUNBOOK, re.MULTILINE
    )
]
OF_LOCKS = "stream_operator", "pg_read_all_stats", "pg_signal_backend"
PID_OF_THE_PAGE = "4711"
WAIT_SECONDS = 60.0


def sql_of(role: str) -> str:
    """The one block for that role."""
    (sql,) = (sql for who, sql in BLOCKS if who == role)
    return sql


@pytest.fixture
def login_as(postgres: Postgres, migrated_database: str) -> Iterator[Callable[..., Connection]]:
    """``login_as("stream_operator")``: a session of a new login that is a member of these roles, as the administrator makes it."""
    database = migrated_database.rpartition("/")[2]
    with ExitStack() as ends:
        administrator = ends.enter_context(closing(psycopg2.connect(migrated_database)))
        administrator.autocommit = True
        cursor = administrator.cursor()

        def login_as(*roles: str) -> Connection:
            name = "_".join(("on_call", *roles))
            cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'made-up'")
            ends.callback(cursor.execute, f"DROP OWNED BY {name}; DROP ROLE {name}")
            for role in roles:
                cursor.execute(f"GRANT {role} TO {name}")
            session = psycopg2.connect(postgres.dsn_of(database, name, "made-up"), application_name=name)
            ends.callback(session.close)
            session.autocommit = True
            return session

        yield login_as


@pytest.mark.parametrize("arguments", [("positions",), ("dead-letters", "list")], ids=" ".join)
def test_a_command_can_be_run_as_an_operator(
    arguments: tuple[str, ...],
    login_as: Callable[..., Connection],
    postgres: Postgres,
    command: Callable[..., Result],
) -> None:
    """They stand at the runbook's head."""
    of_login = login_as("stream_operator").info
    result = command(*arguments, POSTGRES_DSN=postgres.dsn_of(of_login.dbname, of_login.user, "made-up"))
    assert result.exit_code == 0, result.output


def test_every_statement_of_the_runbook_names_its_login() -> None:
    statements = re.findall(r"^ {4,}(?:SELECT|DELETE|UPDATE|INSERT)\b.*$", RUNBOOK, re.MULTILINE)
    assert len(statements) == len(BLOCKS) >= 7
    assert {role for role, _ in BLOCKS} == {"stream_analyst", "stream_privacy_officer", "the owner", *OF_LOCKS}


@pytest.mark.parametrize(("role", "sql"), [block for block in BLOCKS if block[0] not in {"the owner", *OF_LOCKS}])
def test_a_step_can_be_done_as_the_login_it_names(role: str, sql: str, login_as: Callable[..., Connection]) -> None:
    login_as(role).cursor().execute(sql)


@pytest.fixture
def owner(migrated_database: str, login_as: Callable[..., Connection]) -> Iterator[Connection]:
    """A session of the owner of the table, who is no superuser."""
    session = login_as()
    with closing(psycopg2.connect(migrated_database)) as administrator:
        administrator.autocommit = True
        administrator.cursor().execute(f"ALTER TABLE user_logins OWNER TO {session.info.user}")
        yield session
        administrator.cursor().execute("ALTER TABLE user_logins OWNER TO CURRENT_USER")


def test_rows_from_the_future_are_removed_by_the_tables_owner(migrated_database: str, owner: Connection) -> None:
    with closing(psycopg2.connect(migrated_database)) as administrator, administrator, administrator.cursor() as cursor:
        cursor.execute(
            "INSERT INTO user_logins (user_id, sent_at, message_id) VALUES ('now', now(), gen_random_uuid()),"
            " ('ahead', now() + interval '2 days', gen_random_uuid())"
        )
    cursor = owner.cursor()
    cursor.execute(sql_of("the owner"))
    cursor.execute("SELECT user_id FROM user_logins")
    assert cursor.fetchall() == [("now",)]


def test_who_holds_a_lock_is_found_and_ended(login_as: Callable[..., Connection], owner: Connection) -> None:
    """Any operator finds the one that waits for nobody; Postgres's own two roles let whoever is on call look at it, and end it."""
    holder, writer, operator = login_as("stream_analyst"), login_as("stream_writer"), login_as("stream_operator")
    on_call = login_as("stream_operator", "pg_read_all_stats", "pg_signal_backend")
    holder.autocommit = False
    holder.cursor().execute("SELECT count(*) FROM user_logins")
    as_operator, as_on_call = operator.cursor(), on_call.cursor()

    def found() -> list[tuple[object, ...]]:
        as_operator.execute(sql_of("stream_operator"))
        return [row[:3] for row in as_operator.fetchall() if row[3] is not None]

    with ThreadPoolExecutor(2) as threads, closing(holder):  # closed first: else a failure would wait for those who wait
        change = threads.submit(owner.cursor().execute, "ALTER TABLE user_logins ADD COLUMN mine text")
        wait_until(lambda: len(found()) == 1)
        write = threads.submit(writer.cursor().execute, "INSERT INTO user_logins (user_id) VALUES ('u')")
        wait_until(lambda: waiting(as_operator) == 2)
        pid = holder.info.backend_pid
        assert found() == [(pid, holder.info.user, holder.info.user)]

        look, end = (sql_of(role).replace(PID_OF_THE_PAGE, str(pid)) for role in ("pg_read_all_stats", "pg_signal_backend"))
        as_operator.execute(look)
        assert as_operator.fetchall() == [(pid, None, None, "<insufficient privilege>")]
        with pytest.raises(InsufficientPrivilege):
            as_operator.execute(end)

        as_on_call.execute(look)
        ((_, state, since, query),) = as_on_call.fetchall()
        assert (state, since is None, query) == ("idle in transaction", False, "SELECT count(*) FROM user_logins")
        as_on_call.execute(end)
        assert as_on_call.fetchall() == [(True,)]
        change.result(WAIT_SECONDS)
        write.result(WAIT_SECONDS)
    assert found() == []


def waiting(cursor: Cursor) -> int:
    """How many locks of this database's table are waited for."""
    cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'user_logins'::regclass")
    ((count,),) = cursor.fetchall()
    return int(count)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll; fails the test when the time is over."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
