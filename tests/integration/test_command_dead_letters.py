"""`faust -A stream_app dead-letters list`: how many, which, where; never what."""

import json
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from click.testing import Result

Command = Callable[..., Result]
SEALED = "5ea1ed"
MESSAGE = "00000000-0000-4000-8000-00000000000{}"


@pytest.fixture
def letters(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five: minutes 1 to 3 not JSON, 4 and 5 with a wrong ip."""
    monkeypatch.setenv("POSTGRES_DSN", migrated_database)
    with closing(psycopg2.connect(migrated_database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            r"""
            INSERT INTO dead_letters
                (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, field, sealed, failed_at)
            SELECT 'stream_app', 'logins', 0, 100 + n, ('00000000-0000-4000-8000-00000000000' || n)::uuid,
                   timestamptz '2026-01-02 03:00:00Z', CASE WHEN n < 4 THEN 'not_json' ELSE 'invalid_ip' END,
                   CASE WHEN n > 3 THEN 'ip' END, '\x5ea1ed', timestamptz '2026-01-02 04:00:00Z' + n * interval '1 minute'
            FROM generate_series(1, 5) AS n
            """
        )


@pytest.mark.usefixtures("letters")
def test_counts_first_then_the_newest_first(command: Command) -> None:
    result = command("dead-letters", "list", "--limit", "2")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["reason", "dead_letters"],
        ["not_json", "3"],
        ["invalid_ip", "2"],
        [],
        ["failed_at", "reason", "field", "topic", "partition", "record_offset", "message_id", "sent_at",
         "resolution", "refusal", "replays", "replay_ended"],
        ["2026-01-02T04:05:00Z", "invalid_ip", "ip", "logins", "0", "105", MESSAGE.format(5), "2026-01-02T03:00:00Z",
         "-", "-", "0", "-"],
        ["2026-01-02T04:04:00Z", "invalid_ip", "ip", "logins", "0", "104", MESSAGE.format(4), "2026-01-02T03:00:00Z",
         "-", "-", "0", "-"],
    ]  # fmt: skip
    assert SEALED not in result.stdout


@pytest.mark.usefixtures("letters")
def test_one_reason(command: Command) -> None:
    result = command("--json", "dead-letters", "list", "--reason", "not_json")
    listed = json.loads(result.stdout)
    assert listed["counts"] == {"not_json": 3}
    assert [letter["record_offset"] for letter in listed["dead_letters"]] == [103, 102, 101]
    assert listed["dead_letters"][0] == {
        "failed_at": "2026-01-02T04:03:00Z",
        "reason": "not_json",
        "field": None,
        "topic": "logins",
        "partition": 0,
        "record_offset": 103,
        "message_id": MESSAGE.format(3),
        "sent_at": "2026-01-02T03:00:00Z",
        "resolution": None,
        "refusal": None,
        "replays": 0,
        "replay_ended": None,
    }
    assert SEALED not in result.stdout


@pytest.mark.usefixtures("letters")
def test_reason_that_does_not_exist_is_refused(command: Command) -> None:
    result = command("dead-letters", "list", "--reason", "not_jason")
    assert result.exit_code == 2
    assert "'not_json'" in result.stderr


def test_none_is_said(command: Command, migrated_database: str) -> None:
    assert command("dead-letters", "list", POSTGRES_DSN=migrated_database).stdout == "no dead letters\n"
    assert json.loads(command("--json", "dead-letters", "list").stdout) == {"counts": {}, "dead_letters": []}


@pytest.mark.usefixtures("migrated_template")
def test_database_that_was_not_migrated_is_told_how(command: Command, fresh_database: str) -> None:
    """Another database of this server has made the roles; the tables are missing."""
    result = command("dead-letters", "list", POSTGRES_DSN=fresh_database)
    assert result.exit_code == 1
    assert 'relation "public.dead_letters" does not exist' in result.stderr
    assert "`faust -A stream_app migrate`" in result.stderr
