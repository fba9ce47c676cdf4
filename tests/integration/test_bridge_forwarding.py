"""The bridge with real Kafka and both SQS servers: what arrives, in which order, and what is left in the queue."""

import json
import uuid
from collections import defaultdict
from pathlib import Path

import pytest
from integration.running_bridge import Queue, Record, RunningBridge, Topic, wait_for

from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.moto_sqs import Moto

ONE_RECEIVE_AT_A_TIME = {"BRIDGE_RECEIVERS": "1"}
"""For a FIFO queue of Moto's. A receive of its looks once which groups are in flight and marks what it gives out one by one: of two
at a time each may give out later messages of a group whose earlier ones the other has. Seen in 12 of 60 rounds of four receives at
a time, and nothing else, and in none of 60 of ElasticMQ's (moto 5.2.5, ``sqs/models.py``: ``receive_message``)."""

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(params=["elasticmq", "moto"])
def sqs_endpoint_url(request: pytest.FixtureRequest) -> str:
    server: ElasticMq | Moto = request.getfixturevalue(request.param)
    return server.endpoint_url


def login(number: int) -> str:
    return json.dumps({"user_id": f"user-{number % 50}", "ip": f"203.0.113.{number % 256}", "note": "café ✓", "number": number})


def test_each_message_becomes_one_record_and_is_deleted(
    sqs_endpoint_url: str, kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    queue, topic = Queue(sqs_endpoint_url), Topic(kafka.bootstrap_servers)
    on_moto = "moto" in request.node.callspec.id
    number_of = 100 if on_moto else 1_000  # moto's time grows with the square of its queue
    settings = {"BRIDGE_RECEIVERS": "1"} if on_moto else {}  # it may hand one message to two requests at a time
    bodies = [*(login(number) for number in range(number_of - 2)), "not JSON at all", '{"user_id": 7}']
    ids = queue.send(bodies)
    with RunningBridge(tmp_path, queue, topic, **settings) as bridge:
        wait_for(queue.is_empty, "all messages deleted", 60)
        assert bridge.metric("bridge_messages_received_total") == number_of
        assert bridge.metric("bridge_messages_deleted_total", result="ok") == number_of
        assert bridge.metric("bridge_messages_forwarded_total") == number_of
        assert bridge.metric("bridge_in_flight_messages") == 0
        assert bridge.health("/livez")[0] == 200
        assert bridge.health("/readyz")[0] == 200
        assert bridge.stop() < 5
    records = {record.message_id: record for record in topic.records()}
    assert len(topic.records()) == number_of
    assert sorted(records) == sorted(ids)
    for number, (message_id, body) in enumerate(zip(ids, bodies, strict=True)):
        record = records[message_id]
        assert record.value == body.encode()
        assert record.key.decode() == (f"user-{number % 50}" if number < number_of - 2 else message_id)
        assert set(record.headers) == {"message-id", "sent-at", "source"}
        assert record.headers["source"].decode() == queue.name
        assert uuid.UUID(record.message_id)
        assert 1_600_000_000_000 < int(record.headers["sent-at"]) < 4_000_000_000_000
    log = bridge.log_file.read_text()
    assert "203.0.113." not in log
    assert "user-" not in log
    assert [event["event"] for event in bridge.events()] == [
        "policy_in_force",
        "operations_served",
        "bridge_started",
        "bridge_stopping",
        "bridge_stopped",
    ]


def test_a_trace_is_passed_on(sqs_endpoint_url: str, kafka: Kafka, tmp_path: Path) -> None:
    queue, topic = Queue(sqs_endpoint_url), Topic(kafka.bootstrap_servers)
    queue.send([login(1)], traceparent=TRACEPARENT)
    queue.send([login(2)], traceparent="user-2 was here")
    with RunningBridge(tmp_path, queue, topic):
        wait_for(queue.is_empty, "both deleted")
    assert sorted(record.headers.get("traceparent", b"") for record in topic.records()) == [b"", TRACEPARENT.encode()]


def test_bodies_that_only_one_server_takes_arrive_byte_for_byte(moto: Moto, kafka: Kafka, tmp_path: Path) -> None:
    queue, topic = Queue(moto.endpoint_url), Topic(kafka.bootstrap_servers)
    bodies = ["a\x00b", "x" * 1_048_576]
    for body in bodies:
        queue.client.send_message(QueueUrl=queue.url, MessageBody=body)
    with RunningBridge(tmp_path, queue, topic):
        wait_for(queue.is_empty, "all deleted")
    assert {record.value for record in topic.records()} == {body.encode() for body in bodies}


def test_order_is_kept_within_each_group_of_a_fifo_queue(
    sqs_endpoint_url: str, kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The order in which they first appear: Moto may give a message out once more while another request deletes it."""
    settings = ONE_RECEIVE_AT_A_TIME if "moto" in request.node.callspec.id else {}
    queue, topic = Queue(sqs_endpoint_url, fifo=True), Topic(kafka.bootstrap_servers)
    queue.send([login(number) for number in range(60)], group=lambda index: f"group-{index % 5}")
    with RunningBridge(tmp_path, queue, topic, **settings):
        wait_for(queue.is_empty, "all messages deleted")
    by_group = {group: list(dict.fromkeys(numbers)) for group, numbers in numbers_by_key(topic.records()).items()}
    assert by_group == {f"group-{group}": list(range(group, 60, 5)) for group in range(5)}


def test_a_refused_record_holds_back_its_group_and_goes_to_the_dead_letter_queue(
    sqs_endpoint_url: str, kafka: Kafka, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = ONE_RECEIVE_AT_A_TIME if "moto" in request.node.callspec.id else {"BRIDGE_RECEIVERS": "2"}
    queue = Queue(sqs_endpoint_url, fifo=True, visibility_seconds=2, receives_max=2)
    topic = Topic(kafka.bootstrap_servers, bytes_max=20_000)
    too_large = json.dumps({"user_id": "user-0", "secret": [uuid.uuid4().hex for _ in range(2_000)]})
    bodies = [too_large if number == 4 else login(number) for number in range(20)]
    ids = queue.send(bodies, group=lambda index: f"group-{index % 2}")
    with RunningBridge(tmp_path, queue, topic, **settings) as bridge:
        bridge.wait_for_event("record_refused")
        wait_for(lambda: len(numbers_by_key(topic.records()).get("group-1", ())) == 10, "the other group goes on")
        first = numbers_by_key(topic.records())["group-0"]
        assert first == [0, 2], "nothing of the group may overtake the refused record"
        wait_for(queue.is_empty, "the rest, after the dead-letter queue took the refused record", 20)
        refused = bridge.events("record_refused")
        assert {event["message_id"] for event in refused} == {ids[4]}
        assert refused[0]["bytes"] == len(too_large)
        assert refused[0]["code"] == "MSG_SIZE_TOO_LARGE"
        assert bridge.metric("bridge_messages_refused_total") == len(refused) == 2
        assert bridge.metric("bridge_messages_released_total") > 0
    assert numbers_by_key(topic.records())["group-0"] == [0, 2, *range(6, 20, 2)]
    dead = queue.client.receive_message(QueueUrl=queue.dead_letters_url, WaitTimeSeconds=2)["Messages"]
    assert [message["Body"] for message in dead] == [too_large]
    assert "secret" not in bridge.log_file.read_text()


def test_small_records_in_the_batch_of_a_refused_one_are_not_refused(elasticmq: ElasticMq, kafka: Kafka, tmp_path: Path) -> None:
    queue, topic = Queue(elasticmq.endpoint_url), Topic(kafka.bootstrap_servers, bytes_max=20_000, partitions=1)
    too_large = json.dumps({"user_id": "user-0", "secret": [uuid.uuid4().hex for _ in range(2_000)]})
    queue.send([too_large if number % 20 == 0 else login(number) for number in range(100)])
    with RunningBridge(tmp_path, queue, topic, BRIDGE_LINGER_SECONDS="0.3") as bridge:
        wait_for(lambda: bridge.metric("bridge_messages_deleted_total", result="ok") == 95, "all small ones forwarded")
        assert bridge.metric("bridge_messages_refused_total") == 5
        assert queue.counts() == (0, 5)
    assert len({record.message_id for record in topic.records()}) == 95


def numbers_by_key(records: list[Record]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for record in records:
        numbers[record.key.decode()].append(json.loads(record.value)["number"])
    return dict(numbers)
