"""The queries of docs/analyst.md, as the analyst runs them, on rows as the worker writes them."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from login_records import batch_of, builder, records
from pydantic import SecretStr

from dev_servers.made_up_logins import made_up_logins
from stream_app.login_record import NIL_UUID
from stream_app.masking.masker import NULL_TEXT
from stream_app.postgres.connection import ANALYST
from stream_app.postgres.migrations import state
from stream_app.postgres.settings import PostgresSettings

PAGE = (Path(__file__).parents[2] / "docs" / "analyst.md").read_text()
QUERIES = re.findall(r"^    ((?:EXPLAIN )?SELECT [^;]+);\n\n    ( *\w.*)\n", PAGE, re.MULTILINE)
"""Each with the line of its columns' names, which stands under it."""
STATEMENTS = re.findall(r"^    (CREATE [^;]+);", PAGE, re.MULTILINE)
ROWS = 1_000
INSERT = """
    INSERT INTO user_logins
        (user_id, app_version, device_type, masked_ip, locale, masked_device_id, sent_at, message_id, create_date)
    SELECT u, v::int, d, i, l, m, s, id::uuid, (s AT TIME ZONE 'UTC')::date
    FROM (SELECT %s, %s, %s, %s, %s, %s, to_timestamp(%s::bigint / 1000.0), %s) AS row (u, v, d, i, l, m, s, id)
"""
SENT_NOW = """
    UPDATE user_logins SET sent_at = sent_at + shift.by, create_date = ((sent_at + shift.by) AT TIME ZONE 'UTC')::date
    FROM (SELECT now() - max(sent_at) AS by FROM user_logins) AS shift
"""
"""The page asks for the last days."""
MANY_DAYS = """
    INSERT INTO user_logins (user_id, masked_device_id, masked_ip, app_version, sent_at, create_date, message_id)
    SELECT 'u' || n % 5000, 'd' || n % 4000, 'a' || n % 4000, 8000000 + n % 50, sent_at, (sent_at AT TIME ZONE 'UTC')::date,
           gen_random_uuid()
    FROM (SELECT n, now() - n * interval '4 minutes' AS sent_at FROM generate_series(30000, 0, -1) AS n) AS given
"""


@pytest.fixture(scope="module")
def analyst(postgres: Any, migrated_template: str) -> Iterator[Any]:
    """With the analyst's rights, over logins of an app whose builds go beyond 999 and that has no device id of every third."""
    bodies = []
    for number, login in enumerate(made_up_logins(ROWS)):
        body = json.loads(login.body())
        if number % 2:
            body["app_version"] = f"2.3.{990 + number % 30}"
        if number % 3 == 0:
            body["device_id"] = NIL_UUID
        if number % 10 == 0:
            body["user_id"] = body["user_id"].upper()
        bodies.append(json.dumps(body).encode())
    batch = batch_of(records(bodies), 0, ROWS, by=builder())
    columns = {name: [None if cell == NULL_TEXT else cell for cell in column] for name, column in batch.columns.items()}
    rows = list(zip(*columns.values(), strict=True))
    dsn = postgres.create_database(template=migrated_template)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.executemany(INSERT, rows)
        cursor.execute(SENT_NOW)
        cursor.execute(f"SET ROLE {ANALYST}")
        yield cursor
    postgres.drop_database(dsn)


def test_the_page_has_its_queries() -> None:
    assert len(QUERIES) == len(re.findall(r"^    (?:EXPLAIN )?SELECT", PAGE, re.MULTILINE)) > 6
    assert len(STATEMENTS) == 5


@pytest.mark.parametrize(("query", "titles"), QUERIES, ids=[titles.strip() for _, titles in QUERIES])
def test_a_query_of_the_page_runs_and_gives_the_columns_that_are_shown(query: str, titles: str, analyst: Any) -> None:
    analyst.execute(query)

    assert [column.name for column in analyst.description] == [title.strip() for title in titles.split("|")]
    assert analyst.fetchone() is not None
    analyst.connection.commit()
    analyst.execute(f"SET ROLE {ANALYST}")


@pytest.fixture(scope="module")
def long_table(postgres: Any, migrated_template: str) -> Iterator[Any]:
    """Rows of 83 days, so that a week is a small part of them."""
    dsn = postgres.create_database(template=migrated_template)
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(MANY_DAYS)
        cursor.execute("ANALYZE user_logins")
        cursor.execute(f"SET ROLE {ANALYST}")
        (setting,) = re.findall(r"^    (SET [^;]+);", PAGE, re.MULTILINE)
        cursor.execute(setting)
        yield cursor
    postgres.drop_database(dsn)


@pytest.mark.parametrize("query", [query for query, _ in QUERIES], ids=[titles.strip() for _, titles in QUERIES])
def test_no_query_of_the_page_reads_the_whole_table(query: str, long_table: Any) -> None:
    long_table.execute(f"EXPLAIN {query.removeprefix('EXPLAIN ')}")
    plan = "\n".join(line for (line,) in long_table.fetchall())

    assert "Seq Scan on user_logins" not in plan, plan
    assert "_by_day" in plan or "user_logins_sent_at_message_id" in plan


def test_the_owner_s_statements_of_the_page_run(migrated_database: str) -> None:
    """The role, and the suggested indexes: which migrate then says nothing of."""
    settings = PostgresSettings(postgres_dsn=SecretStr(migrated_database))
    before = state(settings)
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in STATEMENTS:
            cursor.execute(statement)
        cursor.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'user_logins'::regclass AND indisvalid")
        assert cursor.fetchone() == (5,)
        assert state(settings) == before
        cursor.execute("DROP ROLE anna")
