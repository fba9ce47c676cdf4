"""`faust -A stream_app dead-letters replay`: what went wrong becomes rows, each once, whatever it is killed at."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import Result
from integration.replay_scene import KILLED_AT, SENT_AT_MS, ReplayScene, log_in
from login_records import LOGIN, login

from dev_servers.kafka import Kafka
from dev_servers.postgres import Postgres
from stream_app.batch import Batch, BatchBuilder
from stream_app.metrics import WorkerMetrics
from stream_app.refusals import Refusal
from stream_app.replays import HEADER_REPLAY

Command = Callable[..., Result]
REPLAY = ("dead-letters", "replay", "--yes")
MESSAGE = "00000000-0000-4000-8000-00000000000{}"
DAY_MS = 86_400_000
WRONG_LOCALE = "ALTER TABLE user_logins ADD CONSTRAINT no_ru CHECK (locale <> 'RU')"
MENDED = "ALTER TABLE user_logins DROP CONSTRAINT no_ru"


def headers(number: int, sent_at_ms: int = SENT_AT_MS) -> list[tuple[str, bytes | None]]:
    return [("message-id", MESSAGE.format(number).encode()), ("sent-at", b"%d" % (sent_at_ms + number)), ("empty", None)]


@pytest.fixture
def scene(
    kafka: Kafka, postgres: Postgres, migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ReplayScene]:
    """An operator runs the commands."""
    made = ReplayScene(kafka, migrated_database, tmp_path)
    made.environment["POSTGRES_DSN"] = log_in(postgres, migrated_database, "replay_operator")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()
    with closing(psycopg2.connect(migrated_database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP ROLE replay_operator")


@pytest.fixture
def refused(scene: ReplayScene) -> ReplayScene:
    """Three logins that the table refused 40 days ago; since then it takes them."""
    scene.query(WRONG_LOCALE)
    scene.produce(*[(login(user_id=f"u{number}"), headers(number)) for number in range(3)])
    scene.work()
    assert scene.letters() == [("row_refused", None, 0, 0, None)] * 3
    scene.query(MENDED)
    return scene


def users(scene: ReplayScene) -> list[str]:
    return [user for (user,) in scene.query("SELECT user_id FROM user_logins ORDER BY ctid")]


def test_what_was_refused_becomes_rows_in_order_with_its_own_time(refused: ReplayScene, command: Command) -> None:
    """The records are far older than SENT_AT_AGE_SECONDS_MAX allows, by when they are in the topic again."""
    result = command(*REPLAY)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "3 sent"), result.output
    assert refused.letters() == [("row_refused", "replayed", 1, 0, None)] * 3
    came, again = list(refused.records(0))[:3], list(refused.records(3))
    assert [(record.key, record.value, record.headers) for record in came] == [
        (record.key, record.value, record.headers[1:]) for record in again
    ]
    assert {record.timestamp > SENT_AT_MS + 31 * DAY_MS for record in again} == {True}
    refused.work()
    assert refused.letters() == [("row_refused", "replayed", 1, 0, "row")] * 3
    assert users(refused) == ["u0", "u1", "u2"]
    assert refused.query("SELECT message_id::text, sent_at = to_timestamp(%s / 1000.0) FROM user_logins LIMIT 1", [SENT_AT_MS]) == [
        (MESSAGE.format(0), True)
    ]
    assert LOGIN["ip"] not in str(refused.query("SELECT * FROM user_logins")), "masked as ever"
    listed = json.loads(command("--json", "dead-letters", "list").stdout)["dead_letters"]
    assert {(letter["resolution"], letter["replays"], letter["replay_ended"]) for letter in listed} == {("replayed", 1, "row")}
    assert command(*REPLAY).stdout == "0 sent\n", "nothing is open"


def test_it_is_recorded_who_replayed_what(refused: ReplayScene, command: Command) -> None:
    command(*REPLAY, "--reason-code", "row_refused", "--limit", "2")
    ((who, action, target, details),) = refused.query("SELECT who, action, target, details FROM operator_actions")
    assert (who, action, target) == ("replay_operator", "dead-letters replay", refused.topic)
    assert (details["dead_letters"], details["reason_code"], details["limit"]) == (2, "row_refused", "2")


def test_what_fails_again_is_open_again_and_refused_after_three_times(scene: ReplayScene, command: Command) -> None:
    scene.produce((b"not json", headers(1)), (login(), headers(2)))
    scene.work()
    for failed in (1, 2, 3):
        assert command(*REPLAY).exit_code == 0
        assert scene.letters() == [("not_json", "replayed", failed, failed - 1, None)]
        metrics = WorkerMetrics()
        scene.work(metrics)
        assert scene.letters() == [("not_json", None, failed, failed, "dead_letter")]
        assert metrics.registry.get_sample_value("stream_dead_letters_total", {"reason": "not_json"}) == 1
    refused = command(*REPLAY)
    assert (refused.exit_code, refused.stdout) == (1, "0 sent\n")
    assert "failed again 3 times" in refused.stderr
    assert scene.letters() == [("not_json", None, 3, 3, "dead_letter")]
    assert command(*REPLAY, "--force").exit_code == 0
    assert (scene.letters()[0][1], len(users(scene))) == ("replayed", 1)


def test_what_fails_again_for_another_reason_says_so(refused: ReplayScene, command: Command) -> None:
    refused.query("ALTER TABLE user_logins ALTER user_id TYPE varchar(1)")
    command(*REPLAY, MESSAGE.format(1))
    before = refused.query("SELECT sealed, record_offset FROM dead_letters ORDER BY record_offset")
    refused.query("UPDATE dead_letters SET reason = 'not_json', field = 'ip', failed_at = 'epoch'")
    refused.work()
    assert refused.query("SELECT reason, field, failed_at > 'epoch' FROM dead_letters ORDER BY record_offset") == [
        ("not_json", "ip", False),
        ("row_refused", None, True),
        ("not_json", "ip", False),
    ]
    assert refused.query("SELECT sealed, record_offset FROM dead_letters ORDER BY record_offset") == before, (
        "sealed as it first came"
    )


@pytest.mark.parametrize("read_between", [True, False])
@pytest.mark.parametrize("at", KILLED_AT)
def test_killed_at_any_step_nothing_is_lost_and_nothing_doubled(
    refused: ReplayScene,
    command: Command,
    at: str,
    read_between: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    refused.run_killed(at, *REPLAY)
    assert refused.query("SELECT count(*) FROM dead_letters WHERE resolution IS NULL") == [(3,)], "none is closed unsent"
    if read_between:
        refused.work()
    again = command(*REPLAY)
    assert again.exit_code == 0, again.output
    refused.work()
    assert sorted(users(refused)) == ["u0", "u1", "u2"]
    assert {(reason, resolution, ended) for reason, resolution, _, _, ended in refused.letters()} == {
        ("row_refused", "replayed", "row")
    }


@pytest.mark.parametrize("read_between", [True, False])
def test_killed_before_the_resolution_what_fails_again_is_open_and_counted_once(
    scene: ReplayScene,
    command: Command,
    read_between: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    scene.produce((b"not json", headers(1)))
    scene.work()
    scene.run_killed("between acknowledgement and resolution", *REPLAY)
    if read_between:
        scene.work()
    assert command(*REPLAY).exit_code == 0
    scene.work()
    assert scene.letters() == [("not_json", None, 2, 2 if read_between else 1, "dead_letter")]


def test_a_worker_that_is_quicker_than_the_command_is_believed(
    scene: ReplayScene, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between acknowledgement and resolution a worker has read it, and it failed: it stays open."""
    from stream_app.replay_producer import ReplayProducer  # noqa: PLC0415 - as the command takes it

    scene.produce((b"not json", headers(1)))
    scene.work()
    real = ReplayProducer.send

    def send_and_work(self: ReplayProducer, records: Any) -> list[str | None]:
        outcomes = real(self, records)
        scene.work()
        return outcomes

    monkeypatch.setattr(ReplayProducer, "send", send_and_work)
    assert command(*REPLAY).exit_code == 0
    assert scene.letters() == [("not_json", None, 1, 1, "dead_letter")]


def test_a_replayed_record_that_is_sent_again_by_others_changes_nothing(scene: ReplayScene, command: Command) -> None:
    scene.produce((b"not json", headers(1)))
    scene.work()
    command(*REPLAY)
    (replayed,) = scene.records(1)
    scene.work()
    scene.produce(*[(replayed.value, list(replayed.headers))] * 3)
    scene.work()
    assert scene.letters() == [("not_json", None, 1, 1, "dead_letter")]
    command("dead-letters", "discard", MESSAGE.format(1), "--reason", "of no use", "--yes")
    scene.produce((replayed.value, list(replayed.headers)))
    scene.work()
    assert scene.letters() == [("not_json", "discarded", 1, 1, "dead_letter")]


def test_a_replayed_row_that_is_refused_while_another_partition_writes_its_message_is_a_row(
    refused: ReplayScene, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No dead letter is written where the row is there by then; nor is the old one open again."""
    command(*REPLAY, MESSAGE.format(0))
    refused.query(WRONG_LOCALE)
    real = BatchBuilder.refuse_row

    def refuse_late(self: BatchBuilder, batch: Batch, refusal: Refusal) -> Batch:
        refused.query(MENDED)
        refused.query(
            "INSERT INTO user_logins (user_id, device_type, app_version, create_date, sent_at, message_id)"
            " VALUES ('u0', 'android', 1, now(), to_timestamp(%s / 1000.0), %s)",
            [SENT_AT_MS, MESSAGE.format(0)],
        )
        return real(self, batch, refusal)

    monkeypatch.setattr(BatchBuilder, "refuse_row", refuse_late)
    metrics = WorkerMetrics()
    refused.work(metrics)
    assert refused.letters() == [("row_refused", "replayed", 1, 0, "row"), *[("row_refused", None, 0, 0, None)] * 2]
    assert metrics.registry.get_sample_value("stream_dead_letters_total", {"reason": "row_refused"}) == 0
    assert users(refused) == ["u0"]


def test_a_mark_that_somebody_made_up_changes_nothing(refused: ReplayScene, command: Command) -> None:
    """Who has read another replayed record, and knows the ids, opens nothing, closes nothing, and makes nothing plausible."""
    command(*REPLAY, MESSAGE.format(0))
    (replayed,) = refused.records(3)
    refused.run_killed("before anything is sent", *REPLAY)  # so a replay of the others is under way
    mark = replayed.headers[0][1] or b""
    others = f"1 {MESSAGE.format(1)} {SENT_AT_MS + 1} {SENT_AT_MS} 1 ".encode() + mark[-64:]
    refused.produce((b"not json", [(HEADER_REPLAY, others), *headers(1)]), (login(), [(HEADER_REPLAY, mark), *headers(2)]))
    refused.produce((login(), [(HEADER_REPLAY, mark), *headers(9)]), timestamp=SENT_AT_MS + 40 * DAY_MS)
    refused.work()
    assert refused.query("SELECT reason, resolution, replay_ended, count(*) FROM dead_letters GROUP BY 1, 2, 3 ORDER BY 1, 2") == [
        ("row_refused", "replayed", "row", 1),
        ("row_refused", None, None, 2),
        ("sent_at_implausible", None, None, 1),
    ]


def test_a_dry_run_says_what_would_be_sent_and_changes_nothing(refused: ReplayScene, command: Command) -> None:
    result = command("dead-letters", "replay", "--dry-run", DEAD_LETTER_PRIVATE_KEYSET_FILE="")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        ["reason       field  dead_letters", "row_refused  -                 3", "", "3 would be sent"],
    )
    assert refused.letters() == [("row_refused", None, 0, 0, None)] * 3
    assert refused.query("SELECT count(*) FROM operator_actions") == [(0,)]


def test_without_yes_and_nobody_to_ask_nothing_is_sent(refused: ReplayScene, command: Command) -> None:
    result = command("dead-letters", "replay")
    assert (result.exit_code, "add --yes" in result.stderr) == (2, True)
    assert refused.letters() == [("row_refused", None, 0, 0, None)] * 3


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (("--reason-code", "not_json"), 0),
        (("--field", "ip"), 0),
        (("--since", "2100-01-01"), 0),
        (("--until", "2100-01-01T00:00:00+0100"), 3),
        (("--since", "2020-01-01T00:00"), 3),
        (("--limit", "1"), 1),
        ((MESSAGE.format(0), MESSAGE.format(2)), 2),
    ],
)
def test_only_what_was_chosen_is_sent(refused: ReplayScene, command: Command, options: tuple[str, ...], sent: int) -> None:
    assert command(*REPLAY, *options).stdout.splitlines()[-1] == f"{sent} sent"
    assert len(list(refused.records(3))) == sent


def test_a_record_that_was_too_large_can_not_be_replayed_and_it_is_said(scene: ReplayScene, command: Command) -> None:
    scene.query(
        "INSERT INTO dead_letters (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, sealed)"
        r" VALUES ('g', %s, 0, 1, gen_random_uuid(), now(), 'record_too_large', '\x00')",
        [scene.topic],
    )
    result = command(*REPLAY)
    assert (result.exit_code, result.stdout) == (1, "0 sent\n")
    assert "only size, digest and first bytes were kept" in result.stderr
    assert scene.letters() == [("record_too_large", None, 0, 0, None)]


def test_what_another_keyset_sealed_is_left_and_the_others_go(refused: ReplayScene, command: Command) -> None:
    refused.query(r"UPDATE dead_letters SET sealed = '\x00' WHERE record_offset = 1")
    result = command(*REPLAY)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "2 sent")
    assert "doesn't open" in result.stderr
    assert [letter[1] for letter in refused.letters()] == ["replayed", None, "replayed"]


def test_a_missing_topic_is_not_made_and_a_missing_kafka_is_told(refused: ReplayScene, command: Command) -> None:
    refused.query("UPDATE dead_letters SET topic = 'absent-topic'")
    absent = command(*REPLAY, KAFKA_TOPIC="absent-topic")
    assert (absent.exit_code, "Kafka has no topic 'absent-topic'" in absent.stderr) == (1, True), absent.output
    assert refused.letters() == [("row_refused", None, 0, 0, None)] * 3
