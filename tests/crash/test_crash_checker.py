"""The checker finds what it is there for: each test takes a run that is all well and spoils one thing."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import psycopg2
import pytest

from crash import checker
from crash.checker import Sides, check
from crash.messages import BAD_KINDS, messages
from crash.servers import Servers
from crash.system import Setup, System

GOOD, BAD = 250, 2 * len(BAD_KINDS)
SENT = list(islice(messages(Random(2)), GOOD)) + list(islice(messages(Random(3), 1.0), BAD))  # noqa: S311 - to be repeatable is the point
GERMAN = sum(message.columns is not None and message.columns.locale == "DE" for message in SENT)


@pytest.fixture(scope="module")
def system(crash_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A run with good and bad messages through a FIFO queue, come to rest, its processes stopped."""
    setup = Setup(workers=1, fifo=True, receives_max=10, messages_per_second=0)
    with System(crash_servers, tmp_path_factory.mktemp("checked"), setup, Random(1)) as running:  # noqa: S311 - to be repeatable is the point
        running.processes.start_bridge("bridge-1")
        running.processes.start_worker("worker-1")
        running.workload.send(SENT)
        assert running.settle(60)
        assert set(running.stop_processes().values()) == {0}
        yield running


@pytest.fixture
def sides(system: System, crash_servers: Servers) -> Iterator[Sides]:
    """Where to look, with a database to spoil."""
    dsn = crash_servers.postgres.create_database(template=system.dsn.rpartition("/")[2])
    yield replace(system.sides(), dsn=dsn)
    crash_servers.postgres.drop_database(dsn)


def spoil(sides: Sides, statements: str) -> None:
    with closing(psycopg2.connect(sides.dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(CHOOSE + statements)


def test_a_good_run_has_no_problem(sides: Sides) -> None:
    verdict = check(sides)
    assert verdict.problems == {}, str(verdict)
    assert (verdict.sent, verdict.rows, verdict.dead_letters, verdict.records) == (GOOD + BAD, GOOD, BAD, GOOD + BAD)
    assert (verdict.redelivered, verdict.queue_dead_letters, verdict.recoveries_seconds) == (0, 0, [])
    assert "nothing lost" in str(verdict)


# Two of them to spoil, always the same ones.
CHOOSE = """
CREATE FUNCTION pg_temp.a_row() RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT min(message_id::text)::uuid FROM user_logins';
CREATE FUNCTION pg_temp.a_letter() RETURNS uuid IMMUTABLE LANGUAGE sql AS 'SELECT min(message_id::text)::uuid FROM dead_letters';
"""
A_ROW = "UPDATE user_logins SET {} WHERE message_id = pg_temp.a_row()"
A_LETTER = "UPDATE dead_letters SET {} WHERE message_id = pg_temp.a_letter()"
A_POSITION = "UPDATE stream_positions SET {} WHERE partition = 2"
NOT_THE_POSITION = {"positions_off": 1, "commits_off": 1}
SPOILED: dict[str, tuple[str, dict[str, int]]] = {
    "row removed": ("DELETE FROM user_logins WHERE message_id = pg_temp.a_row()", {"lost": 1}),
    "row doubled": (
        """DROP INDEX user_logins_sent_at_message_id;
        INSERT INTO user_logins SELECT * FROM user_logins WHERE message_id = pg_temp.a_row()""",
        {"doubled": 1},
    ),
    "row of nobody": (
        """INSERT INTO user_logins
        SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, sent_at, gen_random_uuid()
        FROM user_logins WHERE message_id = pg_temp.a_row()""",
        {"unknown": 1},
    ),
    "user_id altered": (A_ROW.format("user_id = user_id || ' '"), {"altered": 1}),
    "device_type altered": (A_ROW.format("device_type = 'tablet'"), {"altered": 1}),
    "locale altered": (A_ROW.format("locale = 'XX'"), {"altered": 1}),
    "locales emptied": ("UPDATE user_logins SET locale = NULL WHERE locale = 'DE'", {"altered": GERMAN}),
    "app_version altered": (A_ROW.format("app_version = app_version + 1"), {"altered": 1}),
    "create_date altered": (A_ROW.format("create_date = create_date - 1"), {"altered": 1}),
    "sent_at altered": (A_ROW.format("sent_at = sent_at - interval '5 s'"), {"altered": 1}),
    "another row's token": (
        A_ROW.format("masked_ip = (SELECT min(masked_ip) FROM user_logins WHERE message_id <> pg_temp.a_row())"),
        {"altered": 1},
    ),
    "token that does not open": (A_ROW.format("masked_device_id = left(masked_device_id, -4) || 'AAAA'"), {"unopened": 1}),
    "token of another field": (A_ROW.format("masked_ip = masked_device_id"), {"unopened": 1}),
    "dead letter removed": ("DELETE FROM dead_letters WHERE message_id = pg_temp.a_letter()", {"lost": 1}),
    "dead letter of nobody": (A_LETTER.format("message_id = gen_random_uuid()"), {"unknown": 1, "lost": 1}),
    "dead letter with another reason": (A_LETTER.format("reason = 'header_invalid'"), {"altered": 1}),
    "dead letter with another field": (A_LETTER.format("field = 'made_up'"), {"altered": 1}),
    "dead letter that does not open": (A_LETTER.format("sealed = 'nothing'"), {"unopened": 1}),
    "dead letter at another place": (A_LETTER.format("record_offset = record_offset + 1"), {"unopened": 1}),
    "dead letter of another group": (A_LETTER.format("consumer_group = 'other'"), {"altered": 1}),
    "row and dead letter": (
        """INSERT INTO dead_letters
        SELECT consumer_group, topic, partition, record_offset, row.message_id, row.sent_at, reason, field, sealed, failed_at
        FROM dead_letters AS letter, user_logins AS row
        WHERE letter.message_id = pg_temp.a_letter() AND row.message_id = pg_temp.a_row()""",
        {"doubled": 1, "misplaced": 1, "altered": 1},
    ),
    "row in the place of a dead letter": (
        """UPDATE user_logins SET (message_id, sent_at) =
            (SELECT message_id, sent_at FROM dead_letters WHERE message_id = pg_temp.a_letter())
        WHERE message_id = pg_temp.a_row();
        DELETE FROM dead_letters WHERE message_id = pg_temp.a_letter()""",
        {"lost": 1, "misplaced": 1},
    ),
    "position moved on by one": (A_POSITION.format("next_offset = next_offset + 1"), NOT_THE_POSITION),
    "position moved back by one": (A_POSITION.format("next_offset = next_offset - 1"), NOT_THE_POSITION),
    "position removed": ("DELETE FROM stream_positions WHERE partition = 1", NOT_THE_POSITION),
    "position of another group": (A_POSITION.format("consumer_group = 'other'"), NOT_THE_POSITION),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_was_spoiled_is_found_and_nothing_else(sides: Sides, what: str) -> None:
    statements, problems = SPOILED[what]
    spoil(sides, statements)
    verdict = check(sides)
    assert verdict.problems == problems, str(verdict)


def test_what_is_left_in_the_queue_is_found_visible_or_hidden(sides: Sides, system: System) -> None:
    url = system.queue.url
    for body in ("one", "two"):
        system.sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=body, MessageDeduplicationId=secrets.token_hex(4))
    system.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=600)
    try:
        verdict = check(sides)
    finally:
        system.sqs.purge_queue(QueueUrl=url)
    assert verdict.problems == {"left_in_queue": 2}
    assert "1 visible and 1 hidden" in str(verdict)


def test_a_message_that_sqs_has_put_aside_is_found(sides: Sides, system: System) -> None:
    url = str(system.queue.dead_letters_url)
    system.sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="x", MessageDeduplicationId=secrets.token_hex(4))
    assert check(sides).problems == {"unknown": 1}
    system.sqs.purge_queue(QueueUrl=url)


def sent_as_ipv6() -> str:
    return next(ip for message in SENT for ip in message.raw_values if ":" in ip)


class Spoiled:
    """A record with another value, key or partition."""

    def __init__(self, record: Any, value: bytes | None = None, key: bytes | None = None, partition: int | None = None) -> None:
        self._record, self._value, self._key, self._partition = record, value, key, partition

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)

    def value(self) -> Any:
        return self._value or self._record.value()

    def key(self) -> Any:
        return self._key or self._record.key()

    def partition(self) -> Any:
        return self._record.partition() if self._partition is None else self._partition


def of_one_group(records: list[Any]) -> tuple[int, int]:
    """The places of the first two records with one key."""
    first = next(i for i, record in enumerate(records) if sum(record.key() == other.key() for other in records) > 1)
    return first, next(i for i in range(first + 1, len(records)) if records[i].key() == records[first].key())


def swapped(records: list[Any]) -> list[Any]:
    one, other = of_one_group(records)
    records[one], records[other] = records[other], records[one]
    return records


def spread(records: list[Any]) -> list[Any]:
    """A group in two partitions, in the order sent in each."""
    _, other = of_one_group(records)
    records[other] = Spoiled(records[other], partition=(records[other].partition() + 1) % 4)
    return records


def repeated_elsewhere(records: list[Any]) -> list[Any]:
    return [*records, Spoiled(records[0], partition=(records[0].partition() + 1) % 4)]


def repeated_at_the_end(records: list[Any]) -> list[Any]:
    return [*records, records[0]]


RECORDS: dict[str, tuple[Callable[[list[Any]], list[Any]], dict[str, int]]] = {
    "order of a group broken": (swapped, {"out_of_order": 1}),
    "a group in two partitions": (spread, {"scattered": 1}),
    "a message forwarded twice": (repeated_at_the_end, {}),
    "a message forwarded twice, to two partitions": (repeated_elsewhere, {"scattered": 1}),
    "a record's value altered": (lambda records: [Spoiled(records[0], value=b"{}"), *records[1:]], {"altered": 1}),
    "a record's key altered": (lambda records: [Spoiled(records[0], key=b"group-99"), *records[1:]], {"altered": 1}),
}


@pytest.mark.parametrize("what", RECORDS)
def test_what_was_spoiled_in_the_topic_is_found(sides: Sides, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    change, problems = RECORDS[what]
    read = checker._records
    monkeypatch.setattr(checker, "_records", lambda *arguments: change(list(read(*arguments))))
    verdict = check(sides)
    assert verdict.problems == problems, str(verdict)
    assert verdict.redelivered == ("forwarded twice" in what)


def test_where_partitions_were_added_a_group_may_be_in_two(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    read = checker._records
    monkeypatch.setattr(checker, "_records", lambda *arguments: spread(list(read(*arguments))))
    assert check(replace(sides, partitions_added=True)).problems == {}


def test_a_raw_value_in_a_log_is_found_and_what_only_looks_like_one_is_not(sides: Sides, system: System, tmp_path: Path) -> None:
    message = SENT[0]
    log = tmp_path / "some.log"
    log.write_text(f"before this run: {message.raw_values[0]}\n")
    start = log.stat().st_size
    sides = replace(sides, written_files=[*sides.written_files, (log, start)])
    with log.open("a") as lines:
        lines.write("listens on 127.0.0.1, version 4.1.1, 593-47-592\n")
    assert check(sides).problems == {}
    with log.open("a") as lines:
        lines.writelines(f"refused: {value!r}\n" for value in message.raw_values)
    verdict = check(sides)
    assert verdict.problems == {"raw_values": 2}
    with log.open("a") as lines:
        lines.write(f"refused: {IPv6Address(sent_as_ipv6()).exploded.upper()}\n")
    assert check(sides).problems == {"raw_values": 3}
    assert not any(value in str(verdict) for value in message.raw_values)
    assert len(sides.written_files) >= 6, "logs and metrics of bridge and worker, Postgres's log, this one"
    assert system.ledger.sent == GOOD + BAD


def test_recovery_is_measured_from_the_end_of_the_fault_to_the_last_commit_of_what_was_sent_before(sides: Sides) -> None:
    with closing(psycopg2.connect(sides.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM max(sent_at))::float8, extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8"
            " FROM (SELECT sent_at, xmin FROM user_logins UNION ALL SELECT sent_at, xmin FROM dead_letters) AS ends"
        )
        ((last_sent, last_committed),) = cursor.fetchall()
    ends = [last_sent + 0.001, (last_sent + last_committed) / 2, last_committed]
    expected = [last_committed - end for end in ends]
    assert check(sides, faults_ended_at=ends).recoveries_seconds == pytest.approx(expected, abs=0.01)
    assert check(sides, faults_ended_at=ends[2:]).recoveries_seconds == [0]
