"""From SQS to rows, all real: bridge and workers are killed on the way, and what they leave is searched for raw values."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from acceptance.running_pipeline import RunningPipeline, wait_until
from mypy_boto3_sqs import SQSClient
from mypy_boto3_sqs.literals import QueueAttributeNameType

from dev_servers.elasticmq import MADE_UP_CREDENTIALS, ElasticMq
from dev_servers.made_up_logins import MadeUpLogin, made_up_logins
from dev_servers.postgres import Postgres
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

SENDERS = 8
RAW_VALUE = re.compile(rb"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])|(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)|2001:db8:[0-9a-f:]+")
"""What an IP address or a device id of the made-up logins looks like."""


@pytest.fixture
def queue_url(sqs: SQSClient, pipeline: RunningPipeline, elasticmq: ElasticMq) -> Iterator[str]:
    url = sqs.create_queue(QueueName=pipeline.topic, Attributes={"VisibilityTimeout": "10"})["QueueUrl"]
    pipeline.environment |= {"AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url, "SQS_QUEUE_URL": url, **MADE_UP_CREDENTIALS}
    yield url
    pipeline.stop_all()
    sqs.delete_queue(QueueUrl=url)


def send(sqs: SQSClient, url: str, bodies: list[str]) -> list[str]:
    """Put messages on the queue; their message ids, in the same order."""

    def send_ten(ten: tuple[str, ...]) -> list[str]:
        answer = sqs.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(ten)]
        )
        by_entry = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
        return [by_entry[str(number)] for number in range(len(ten))]

    tens = [tuple(bodies[start : start + 10]) for start in range(0, len(bodies), 10)]
    with ThreadPoolExecutor(SENDERS) as pool:
        return [message_id for ids in pool.map(send_ten, tens) for message_id in ids]


def messages_left(sqs: SQSClient, url: str) -> int:
    names: tuple[QueueAttributeNameType, ...] = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    return sum(int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]) for name in names)


def everything_left(pipeline: RunningPipeline, postgres: Postgres, scrapes: list[str]) -> bytes:
    """Logs, metrics and the content of every table, binary columns as they are."""
    parts = [path.read_bytes() for path in pipeline.directory.glob("*.log")]
    parts += [scrape.encode() for scrape in scrapes]
    parts.append(postgres.log_file.read_bytes())
    tables = pipeline.query(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables WHERE table_schema = 'public'"
    )
    for (table,) in tables:
        for row in pipeline.query(f"SELECT * FROM {table}"):  # noqa: S608 - the catalog's own name
            parts += [bytes(cell) if isinstance(cell, memoryview) else str(cell).encode() for cell in row]
    return b"\n".join(parts)


def raw_values(logins: list[MadeUpLogin]) -> set[bytes]:
    return {value.encode() for login in logins for value in (login.ip, login.device_id)}


def test_20000_messages_each_once_although_everything_is_killed(
    pipeline: RunningPipeline, sqs: SQSClient, queue_url: str, postgres: Postgres, keys_directory: Path
) -> None:
    logins = list(made_up_logins(20_000))
    poison = [json.dumps({"foo": login.ip, "bar": login.device_id}) for login in logins[:20]]
    pipeline.start_bridge("bridge")
    pipeline.start_worker("one")
    pipeline.start_worker("two")
    ids = send(sqs, queue_url, [login.body() for login in logins] + poison)
    wait_until(lambda: pipeline.count("user_logins") > 2_000, "rows")
    pipeline.kill("one")
    pipeline.kill("bridge")
    pipeline.start_bridge("bridge-again")
    pipeline.start_worker("one-again")
    wait_until(lambda: pipeline.count("user_logins") > 6_000, "more rows")
    pipeline.kill("two")
    pipeline.start_worker("two-again")
    wait_until(lambda: messages_left(sqs, queue_url) == 0, "the queue is empty", 120)
    pipeline.wait_drained()

    pipeline.assert_each_once(ids)
    assert pipeline.query("SELECT DISTINCT reason, field FROM dead_letters") == [("missing_key", "user_id")]
    assert pipeline.count("dead_letters") == len(poison)
    masker = Masker.load(parse_methods(""), keyset_file=keys_directory / "masking.keyset.json", hmac_keyset_file=None)
    sent = dict(zip(ids, logins, strict=False))
    for message_id, user_id, masked_ip, masked_device_id in pipeline.query(
        "SELECT message_id::text, user_id, masked_ip, masked_device_id FROM user_logins"
    ):
        login = sent[message_id]
        assert user_id == login.user_id
        assert masker.reveal("ip", masked_ip) == login.ip
        assert masker.reveal("device_id", masked_device_id) == login.device_id

    left = everything_left(pipeline, postgres, [pipeline.scrape(name) for name in pipeline.running])
    pipeline.stop_all()
    found = set(RAW_VALUE.findall(left)) & raw_values(logins)
    assert found == set()


def test_the_search_for_raw_values_finds_one(pipeline: RunningPipeline, postgres: Postgres) -> None:
    (login,) = made_up_logins(1)
    pipeline.query("INSERT INTO user_logins (user_id, locale) VALUES ('x', %s)", [f"({login.ip})"])
    assert set(RAW_VALUE.findall(everything_left(pipeline, postgres, []))) & raw_values([login]) == {login.ip.encode()}


LOGIN = asdict(next(made_up_logins(1)))


def changed(**changes: object) -> bytes:
    return json.dumps({**LOGIN, **changes}).encode()


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in LOGIN.items() if name != key}).encode()


BAD_INPUT: list[tuple[bytes | None, str, str | None]] = [
    (b"not json", "not_json", None),
    (b"", "empty_body", None),
    (None, "empty_body", None),
    (b"[]", "not_an_object", None),
    (b'"text"', "not_an_object", None),
    (b"17", "not_an_object", None),
    (b"null", "not_an_object", None),
    (b'{"foo": "a", "bar": "b"}', "missing_key", "user_id"),
    (without("device_id"), "missing_key", "device_id"),
    (changed(ip=None), "null_value", "ip"),
    (changed(user_id=17), "wrong_type", "user_id"),
    (changed(locale=["DE"]), "wrong_type", "locale"),
    (changed(device_type={}), "wrong_type", "device_type"),
    (changed(user_id=""), "empty_value", "user_id"),
    (changed(user_id="u" * 129), "too_long", "user_id"),
    (changed(device_type="d" * 33), "too_long", "device_type"),
    (changed(locale="l" * 33), "too_long", "locale"),
    (changed(device_id="i" * 1_000), "too_long", "device_id"),
    (changed(user_id="a\0b"), "control_character", "user_id"),
    (changed(device_id="a\x1fb"), "control_character", "device_id"),
    (changed(locale="\x02"), "control_character", "locale"),
    (changed(device_type="\ud800"), "lone_surrogate", "device_type"),
    (changed().replace(b'"ios"', b'"i\xffs"').replace(b'"android"', b'"a\xffd"'), "not_utf8", None),
    (b"\x00" * 1_048_576, "not_json", None),
    (b'{"user_id": ' + b"9" * 100_000 + changed()[1:].replace(b'"user_id"', b', "x"', 1), "wrong_type", "user_id"),
    (b"[" * 100_000 + b"]" * 100_000, "too_deep", None),
    (changed(ip="1.2.3.4.5"), "invalid_ip", "ip"),
    (changed(ip="256.1.1.1"), "invalid_ip", "ip"),
    (changed(ip="not an address"), "invalid_ip", "ip"),
    (changed(ip="fe80::1%eth0"), "invalid_ip", "ip"),
    (changed(app_version=""), "empty_value", "app_version"),
    *((changed(app_version=version), "invalid_app_version", "app_version")
      for version in ("1.2.3.4", "2.3.0-beta", "-1.0", "1.1000", "99999.1")),
]  # fmt: skip


def test_bad_input_becomes_dead_letters_with_reasons_and_the_good_beside_it_rows(pipeline: RunningPipeline) -> None:
    twice = changed(user_id="twice").replace(b'"ip"', b'"ip": "198.51.100.77", "ip"')
    extra = changed(user_id="extra", more=1)
    bodies = [body for bad, _, _ in BAD_INPUT for body in (bad, changed(user_id="good"))] + [twice, extra]
    now_ms = time.time_ns() // 1_000_000
    pipeline.start_worker()
    pipeline.produce((b"same partition", body, {"sent-at": str(now_ms + n).encode()}) for n, body in enumerate(bodies))
    pipeline.wait_drained()
    letters = pipeline.query("SELECT reason, field FROM dead_letters ORDER BY record_offset")
    assert letters == [(reason, field) for _, reason, field in BAD_INPUT]
    assert pipeline.count("user_logins") == len(BAD_INPUT) + 2
    assert pipeline.metric("worker", "stream_records_with_extra_keys_total") == 1
    assert pipeline.metric("worker", "stream_dead_letters_total", reason="too_deep") == 1
    assert "198.51.100.77" not in str(pipeline.query("SELECT * FROM user_logins")) + pipeline.log("worker")
    listed = pipeline.run("dead-letters", "list")
    assert "invalid_app_version" in listed
