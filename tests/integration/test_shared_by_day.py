"""What shared_devices_by_day and shared_addresses_by_day answer to the analyst, and that they read no more than asked."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from typing import Any

import psycopg2
import pytest

from stream_app.postgres.connection import ANALYST

LOGIN = """
    INSERT INTO user_logins (user_id, masked_device_id, masked_ip, sent_at, create_date, message_id)
    VALUES (%s, %s, %s, %s, (%s::timestamptz AT TIME ZONE 'UTC')::date, gen_random_uuid())
"""
LONG_TABLE = """
    INSERT INTO user_logins (user_id, masked_device_id, masked_ip, sent_at, create_date, message_id)
    SELECT 'u' || n % 5000, 'd' || n % 2500, 'a' || n % 2500, sent_at, (sent_at AT TIME ZONE 'UTC')::date, gen_random_uuid()
    FROM (
        SELECT n, timestamptz '2026-09-01 00:00+00' + n * interval '1 minute' AS sent_at FROM generate_series(0, 19999) AS n
    ) AS given;
    ANALYZE user_logins
"""
FUNCTIONS = ("shared_devices_by_day", "shared_addresses_by_day")
FIRST, SECOND = date(2026, 9, 1), date(2026, 9, 2)


@pytest.fixture
def owner(migrated_database: str) -> Iterator[Any]:
    with closing(psycopg2.connect(migrated_database)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


def add(owner: Any, *logins: tuple[str, str | None, str, str]) -> None:
    for user, device, address, sent_at in logins:
        owner.execute(LOGIN, (user, device, address, sent_at, sent_at))


def answer(cursor: Any, function: str, *bounds: str) -> list[tuple[Any, ...]]:
    """As the analyst gets it."""
    cursor.execute(f"SET ROLE {ANALYST}")
    cursor.callproc(function, bounds)
    rows: list[tuple[Any, ...]] = sorted(cursor.fetchall())
    cursor.execute("RESET ROLE")
    return rows


def test_what_several_users_share_on_one_day_is_told_with_its_logins_and_users(owner: Any) -> None:
    add(
        owner,
        ("anna", "tablet", "home", "2026-09-01 00:00+00"),
        ("anna", "tablet", "home", "2026-09-01 08:00+00"),
        ("ben", "tablet", "office", "2026-09-01 09:00+00"),
        ("ben", "phone", "office", "2026-09-01 10:00+00"),
        ("carl", "phone", "office", "2026-09-02 10:00+00"),  # another day
        ("carl", None, "cafe", "2026-09-02 11:00+00"),  # no device at all
        ("dora", None, "cafe", "2026-09-02 12:00+00"),
    )

    assert answer(owner, "shared_devices_by_day", "2026-09-01") == [(FIRST, "tablet", 3, 2)]
    assert answer(owner, "shared_addresses_by_day", "2026-09-01") == [(SECOND, "cafe", 2, 2)]


def test_a_login_at_since_counts_and_one_at_until_does_not(owner: Any) -> None:
    add(
        owner,
        ("anna", "tablet", "home", "2026-09-01 06:00+00"),
        ("ben", "tablet", "home", "2026-09-01 07:00+00"),
        ("carl", "tablet", "home", "2026-09-01 08:00+00"),
    )

    for function in FUNCTIONS:
        assert [row[2:] for row in answer(owner, function, "2026-09-01 06:00+00", "2026-09-01 08:00+00")] == [(2, 2)]
        assert answer(owner, function, "2026-09-01 07:00+00", "2026-09-01 08:00+00") == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_table_is_not_read_whole(function: str, owner: Any) -> None:
    owner.execute(LONG_TABLE)
    owner.execute("BEGIN")
    for hour in range(8):  # more often than a session plans anew by itself
        answer(owner, function, f"2026-09-03 0{hour}:00+00", f"2026-09-03 0{hour + 1}:00+00")
    owner.execute(
        """SELECT pg_stat_get_xact_numscans('user_logins'::regclass), pg_stat_get_xact_numscans(index),
               pg_stat_get_xact_tuples_fetched(index)
        FROM CAST('user_logins_sent_at_message_id'::regclass AS oid) AS index"""
    )
    whole_reads, index_scans, rows_fetched = owner.fetchone()
    owner.execute("COMMIT")

    assert (whole_reads, index_scans) == (0, 8)
    assert rows_fetched == 8 * 60


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE user_logins ALTER user_id TYPE text, ALTER masked_ip TYPE text, ALTER masked_device_id TYPE text",
        """
        ALTER TABLE user_logins RENAME TO user_logins_before;
        CREATE TABLE user_logins (LIKE user_logins_before) PARTITION BY RANGE (sent_at);
        CREATE TABLE user_logins_2026 PARTITION OF user_logins FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
        CREATE UNIQUE INDEX ON user_logins (sent_at, message_id);
        GRANT SELECT ON user_logins TO stream_analyst
        """,
    ],
    ids=["types", "partitions"],
)
def test_the_owner_may_change_the_table(change: str, owner: Any) -> None:
    owner.execute(change)
    add(owner, ("anna", "tablet", "home", "2026-09-01 06:00+00"), ("ben", "tablet", "home", "2026-09-01 07:00+00"))

    for function in FUNCTIONS:
        assert [row[2:] for row in answer(owner, function, "2026-09-01", "2026-09-02")] == [(2, 2)]
