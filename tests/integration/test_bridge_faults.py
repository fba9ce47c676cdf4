"""The bridge when something breaks: Kafka stops, SQS fails in whole or in part, receipts expire, the process is killed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from threading import Event

import pytest
from crash.sqs_front import Answer, Request, SqsFront, answer, error, first
from integration.running_bridge import Queue, RunningBridge, Topic, wait_for
from signal_masks import threads_that_take

from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka
from pipeline.ending import EXIT_REFUSED


@pytest.fixture
def queue(elasticmq: ElasticMq) -> Queue:
    return Queue(elasticmq.endpoint_url)


@pytest.fixture
def topic(kafka: Kafka) -> Topic:
    return Topic(kafka.bootstrap_servers)


@pytest.fixture
def proxy(elasticmq: ElasticMq) -> Iterator[SqsFront]:
    with SqsFront(elasticmq.endpoint_url) as running:
        yield running


def logins(number: int) -> list[str]:
    return [json.dumps({"user_id": f"user-{index}", "ip": "203.0.113.7", "number": index}) for index in range(number)]


def test_kafka_stopped_and_started_loses_nothing_and_deletes_nothing_before(
    elasticmq: ElasticMq, kafka: Kafka, tmp_path: Path
) -> None:
    """Visibility (6 s) runs out while Kafka is away: what is held must be extended, or it would come twice."""
    queue, topic = Queue(elasticmq.endpoint_url, visibility_seconds=6), Topic(kafka.bootstrap_servers)
    with RunningBridge(tmp_path, queue, topic) as bridge:
        early = queue.send(logins(50))
        wait_for(queue.is_empty, "forwarding works")
        polled = bridge.metric("bridge_last_poll_timestamp_seconds")
        wait_for(lambda: bridge.metric("bridge_last_poll_timestamp_seconds") > polled, "an empty queue answers, too")
        assert bridge.metric("bridge_receivers_asking") >= 1
        kafka.stop()
        try:
            late = queue.send(logins(200))
            bridge.wait_for_event("kafka_failing")
            why = bridge.wait_for_event("kafka_still_failing")["problem"]  # as soon as it is found out
            assert why == f"nobody listens at {kafka.bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS)"
            extended = wait_for(
                lambda: bridge.metric("bridge_visibility_extensions_total", result="ok"), "what is held is extended"
            )
            before = bridge.metric("bridge_messages_received_total")
            later = queue.send(logins(300))
            wait_for(lambda: bridge.metric("bridge_visibility_extensions_total", result="ok") >= extended * 2, "and again")
            received = bridge.metric("bridge_messages_received_total")
            assert received <= before + 4 * 10, "while Kafka is away no more is received than open requests bring"
            assert queue.counts() == (550 - received, received - 50), "nothing is deleted, what is held is hidden"
            assert bridge.metric("bridge_messages_deleted_total", result="ok") == 50
            assert bridge.health("/readyz")[0] == 503
            assert bridge.health("/readyz")[1]["kafka"]["ok"] is False
            assert bridge.health("/livez")[0] == 200
            assert bridge.metric("bridge_receivers_asking") == 0, "SQS is not what it waits for"
        finally:
            kafka.start()
        wait_for(queue.is_empty, "the rest is forwarded", 40)
        bridge.wait_for_event("kafka_recovered")
        assert bridge.metric("bridge_receipts_expired_total") == 0
        assert bridge.metric("bridge_messages_redelivered_total") == 0
        assert bridge.health("/readyz")[0] == 200
        bridge.stop()
    assert {record.message_id for record in topic.records()} == {*early, *late, *later}
    assert len(bridge.events()) < 15, "an outage is a few lines"


def test_a_message_whose_bridge_is_killed_before_the_delete_comes_again_with_the_same_key_and_id(
    elasticmq: ElasticMq, kafka: Kafka, proxy: SqsFront, tmp_path: Path
) -> None:
    queue, topic = Queue(elasticmq.endpoint_url, visibility_seconds=2), Topic(kafka.bootstrap_servers)
    never = Event()
    proxy.rules.append(lambda request: (never.wait(30), error(500, "InternalError"))[1] if "Delete" in request.operation else None)
    ids = queue.send(logins(7))
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url) as bridge:
        wait_for(lambda: proxy.requests.get("DeleteMessageBatch"), "a delete that is not answered")
        wait_for(lambda: topic.has(7), "the records are there")
        bridge.child.send_signal(SIGKILL)
        bridge.child.wait(5)
    never.set()
    with RunningBridge(tmp_path, queue, topic) as bridge:
        wait_for(queue.is_empty, "the second bridge forwards and deletes")
        assert bridge.metric("bridge_messages_redelivered_total") == 7
    records = topic.records()
    assert sorted(record.message_id for record in records) == sorted(ids * 2)
    assert len({(record.message_id, record.key, record.partition, record.value) for record in records}) == 7


def test_a_bridge_that_may_not_delete_fills_up_and_shows_what_its_alert_goes_by(
    queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path
) -> None:
    """It neither receives nor forwards any more, no message counts as deleted in any way, and none is late: Kafka has them all."""
    proxy.rules.append(lambda request: error(403, "AccessDenied") if request.operation == "DeleteMessageBatch" else None)
    queue.send(logins(300))
    with RunningBridge(
        tmp_path, queue, topic, endpoint_url=proxy.endpoint_url, BRIDGE_IN_FLIGHT_MESSAGES_MAX="100", BRIDGE_RECEIVERS="2"
    ) as bridge:
        wait_for(lambda: bridge.metric("bridge_messages_forwarded_total") > 90, "it is full")
        wait_for(lambda: bridge.metric("bridge_receivers_asking") == 0, "it asks for no more")
        refused = bridge.metric("bridge_sqs_requests_total", operation="DeleteMessageBatch", result="refused")
        wait_for(
            lambda: bridge.metric("bridge_sqs_requests_total", operation="DeleteMessageBatch", result="refused") > refused,
            "it tries again",
        )
        assert bridge.metric("bridge_messages_forwarded_total") <= 100
        assert bridge.metric("bridge_messages_deleted_total") == 0
        assert bridge.metric("bridge_oldest_message_timestamp_seconds") == 0
        proxy.rules.clear()
        wait_for(queue.is_empty, "the right is there again", 60)


def test_a_stop_under_load_is_quick_and_leaves_everything_forwarded_or_visible(
    queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path
) -> None:
    """Each receive takes 0.1 s, or the queue could be empty before the stop."""
    proxy.rules.append(lambda request: time.sleep(0.1) if "Receive" in request.operation else None)
    ids = queue.send(logins(1_500))
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url) as bridge:
        wait_for(lambda: bridge.metric("bridge_messages_deleted_total", result="ok") > 100, "it works")
        assert bridge.stop() < 5
    visible, hidden = queue.counts()
    assert hidden == 0
    assert visible > 0, "stopped under load"
    records = [record.message_id for record in topic.records()]
    assert len(records) == len(set(records)) == 1_500 - visible
    with RunningBridge(tmp_path, queue, topic):
        wait_for(queue.is_empty, "the rest")
    assert sorted(record.message_id for record in topic.records()) == sorted(ids)


def test_a_stop_while_kafka_is_away_makes_all_visible_at_once(elasticmq: ElasticMq, kafka: Kafka, tmp_path: Path) -> None:
    queue, topic = Queue(elasticmq.endpoint_url, fifo=True, visibility_seconds=600), Topic(kafka.bootstrap_servers)
    with RunningBridge(tmp_path, queue, topic, BRIDGE_PRODUCE_TIMEOUT_SECONDS="2") as bridge:
        bridge.wait_for_event("bridge_started")
        kafka.stop()
        try:
            queue.send(logins(40), group=lambda index: f"group-{index % 4}")
            bridge.wait_for_event("kafka_failing")
            assert bridge.stop() < 5
            stopped = bridge.wait_for_event("bridge_stopped")
            assert queue.counts() == (40, 0)
            assert stopped["released"] > 0
            assert stopped["left_hidden"] == 0
            second = RunningBridge(tmp_path, queue, topic)
            second.wait_for_event("operations_served")
        finally:
            kafka.start()
    with second:
        wait_for(queue.is_empty, "forwarded by a bridge that was started while Kafka was away")
    by_group: dict[bytes, list[int]] = {}
    for record in topic.records():
        numbers = by_group.setdefault(record.key, [])
        if (number := json.loads(record.value)["number"]) not in numbers:
            numbers.append(number)
    assert by_group == {f"group-{group}".encode(): list(range(group, 40, 4)) for group in range(4)}


def test_no_thread_but_the_one_that_waits_for_it_takes_the_signal_to_stop(queue: Queue, topic: Topic, tmp_path: Path) -> None:
    with RunningBridge(tmp_path, queue, topic) as bridge:
        bridge.wait_for_event("bridge_started")
        assert threads_that_take(bridge.child.pid, SIGTERM) == 1


def test_a_second_signal_ends_it_at_once(queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path) -> None:
    asked = Event()

    def hold_receives(request: Request) -> None:
        if request.operation == "ReceiveMessage":
            asked.set()
            time.sleep(6)  # as a network that swallows the answer

    proxy.rules.append(hold_receives)
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url) as bridge:
        assert asked.wait(20)
        bridge.child.send_signal(SIGTERM)
        bridge.wait_for_event("bridge_stopping")
        bridge.child.send_signal(SIGTERM)
        assert bridge.child.wait(2) == 128 + SIGTERM


def test_errors_of_sqs_are_survived_with_backoff(queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path) -> None:
    proxy.rules += [
        first(2, "ReceiveMessage", error(500, "InternalError")),
        first(2, "ReceiveMessage", error(503, "ServiceUnavailable")),
        first(2, "ReceiveMessage", error(400, "RequestThrottled")),
        first(1, "ReceiveMessage", error(403, "AccessDenied")),
        first(1, "ReceiveMessage", answer({"Messages": [{"Body": 7}]})),
        first(3, "DeleteMessageBatch", error(503, "ServiceUnavailable")),
    ]
    ids = queue.send(logins(30))
    # One receiver, and so one deleter: the errors meet one request after the other, not several that each get over their own.
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url, BRIDGE_RECEIVERS="1") as bridge:
        wait_for(queue.is_empty, "all forwarded in spite of them")
        bridge.wait_for_event("sqs_recovered")
        assert bridge.metric("bridge_backoffs_total", dependency="sqs") >= 5
        assert bridge.metric("bridge_sqs_requests_total", operation="ReceiveMessage", result="throttled") >= 1
        assert bridge.metric("bridge_sqs_requests_total", operation="ReceiveMessage", result="refused") == 1
        assert bridge.metric("bridge_sqs_requests_total", operation="DeleteMessageBatch", result="failed") >= 1
        assert bridge.health("/readyz")[0] == 200
        bridge.stop()
    assert sorted(record.message_id for record in topic.records()) == sorted(ids)
    assert [event["event"] for event in bridge.events() if event["event"].startswith("sqs_")] == ["sqs_failing", "sqs_recovered"]


def test_only_the_failed_entries_of_a_batch_are_deleted_again(queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path) -> None:
    """SQS fails for the first half of the first delete batch; it says nothing at all of the last entry."""
    deletes: list[list[str]] = []

    def half_fails(request: Request) -> Answer | None:
        if request.operation != "DeleteMessageBatch":
            return None
        entries = request.body["Entries"]
        handles = [entry["ReceiptHandle"] for entry in entries]
        deletes.append(handles)
        if len(deletes) > 1:
            return None
        failing, working = entries[: len(handles) // 2], entries[len(handles) // 2 : -1]
        request.forward(Entries=working)
        failed = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in failing]
        return answer({"Successful": [{"Id": entry["Id"]} for entry in working], "Failed": failed})

    proxy.rules.append(half_fails)
    queue.send(logins(10))
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url, BRIDGE_LINGER_SECONDS="0.2") as bridge:
        wait_for(queue.is_empty, "all deleted in the end")
        wait_for(lambda: bridge.metric("bridge_messages_deleted_total", result="ok") == 10, "counted")
        failed_first = len(deletes[0]) // 2 + 1
        assert bridge.metric("bridge_messages_deleted_total", result="failed") == failed_first
    again = [handle for handles in deletes[1:] for handle in handles]
    assert [handle for handle in again if handle in deletes[0]] == [*deletes[0][: failed_first - 1], deletes[0][-1]]
    assert len(topic.records()) == 10


def test_an_expired_receipt_is_counted_and_the_message_comes_again(
    elasticmq: ElasticMq, kafka: Kafka, proxy: SqsFront, tmp_path: Path
) -> None:
    """The answers to deletes and extensions are held up until the queue has given the messages out anew."""
    queue, topic = Queue(elasticmq.endpoint_url, visibility_seconds=2), Topic(kafka.bootstrap_servers)
    held_up = Event()

    def hold_up(request: Request) -> Answer | None:
        if request.operation in {"DeleteMessageBatch", "ChangeMessageVisibilityBatch"} and not held_up.is_set():
            return error(503, "ServiceUnavailable")
        return None

    proxy.rules.append(hold_up)
    ids = queue.send(logins(5))
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url) as bridge:
        wait_for(lambda: bridge.metric("bridge_messages_redelivered_total") >= 5, "the queue gives them out again")
        held_up.set()
        wait_for(queue.is_empty, "deleted with the newer receipt")
        wait_for(lambda: bridge.metric("bridge_in_flight_messages") == 0, "nothing is held for ever")
        assert bridge.metric("bridge_receipts_expired_total") >= 5
        bridge.stop()
    assert {record.message_id for record in topic.records()} == set(ids)


def test_no_more_is_received_than_may_be_in_flight(queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path) -> None:
    working = Event()

    def deletes_fail(request: Request) -> Answer | None:
        return error(503, "ServiceUnavailable") if request.operation == "DeleteMessageBatch" and not working.is_set() else None

    proxy.rules.append(deletes_fail)
    queue.send(logins(100))
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url, BRIDGE_IN_FLIGHT_MESSAGES_MAX="30") as bridge:
        wait_for(lambda: bridge.metric("bridge_in_flight_messages") == 30, "as many as allowed")
        wait_for(lambda: bridge.metric("bridge_backoffs_total", dependency="sqs") >= 6, "deletes fail")
        assert bridge.metric("bridge_messages_received_total") == 30
        assert queue.counts() == (70, 30)
        working.set()
        wait_for(queue.is_empty, "the rest")
    assert len(topic.records()) == 100


def test_an_idle_bridge_keeps_one_request_open_and_a_busy_one_many(
    queue: Queue, topic: Topic, proxy: SqsFront, tmp_path: Path
) -> None:
    with RunningBridge(tmp_path, queue, topic, endpoint_url=proxy.endpoint_url) as bridge:
        wait_for(lambda: proxy.requests.get("ReceiveMessage", 0) >= 3, "an idle queue is asked again and again")
        assert bridge.metric("bridge_receivers_active") == 1
        queue.send(logins(300))
        wait_for(lambda: bridge.metric("bridge_receivers_active") == 4, "all receivers ask while there is something")
        wait_for(lambda: bridge.metric("bridge_receivers_active") == 1, "and one when there is not")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"SQS_QUEUE_URL": ""}, "SQS_QUEUE_URL"),
        ({"SQS_QUEUE_URL": "http://127.0.0.1:1/000000000000/none"}, "SQS_QUEUE_URL"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "true"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_DEFAULT_REGION": ""}, "AWS_DEFAULT_REGION"),
        ({"AWS_ENDPOINT_URL_SQS": "nonsense"}, "AWS_ENDPOINT_URL_SQS"),
        ({"KAFKA_TOPIC": "missing", "KAFKA_TOPIC_REPLICATION": "3"}, "KAFKA_TOPIC"),
        ({"BRIDGE_RECEIVERS": "0"}, "BRIDGE_RECEIVERS"),
        ({"BRIDGE_SHUTDOWN_SECONDS": "1"}, "BRIDGE_SHUTDOWN_SECONDS"),
    ],
)
def test_what_only_a_person_can_mend_ends_the_start_with_one_line(
    queue: Queue, topic: Topic, tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    with RunningBridge(tmp_path, queue, topic, HOME=str(tmp_path), **settings) as bridge:
        assert bridge.child.wait(15) == EXIT_REFUSED
    lines = [json.loads(line) for line in bridge.log_file.read_text().splitlines()]
    (refused,) = [line for line in lines if line["event"] == "start_refused"]
    assert (refused["exit_code"], refused["level"]) == (EXIT_REFUSED, "critical")
    assert expected in refused["problem"]


def test_a_visibility_timeout_that_is_too_short_is_refused(elasticmq: ElasticMq, topic: Topic, tmp_path: Path) -> None:
    with RunningBridge(tmp_path, Queue(elasticmq.endpoint_url, visibility_seconds=1), topic) as bridge:
        assert bridge.child.wait(15) == EXIT_REFUSED
    assert "visibility timeout of 1 s" in bridge.log_file.read_text()


def test_a_start_without_kafka_waits_for_it_and_stops_when_told(queue: Queue, topic: Topic, tmp_path: Path) -> None:
    with RunningBridge(tmp_path, queue, topic, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1") as bridge:
        wait_for(lambda: bridge.metric("bridge_ready", dependency="kafka") == 0, "Kafka was asked")
        assert bridge.metric("bridge_ready", dependency="sqs") == 1, "it has answered"
        assert bridge.metric("bridge_receivers_asking") == 0, "nothing is asked of SQS before Kafka is there"
        status, says = bridge.health("/readyz")
        assert (status, says["started"], says["sqs"]["ok"], says["kafka"]["ok"]) == (503, False, True, False)
        assert says["kafka"]["problem"] == "nobody listens at 127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS)"
        assert bridge.wait_for_event("kafka_failing")["problem"] == says["kafka"]["problem"]
        assert bridge.health("/livez")[0] == 200
        assert bridge.stop() < 3


def test_a_start_without_sqs_waits_for_it_and_blames_nothing_else(queue: Queue, topic: Topic, tmp_path: Path) -> None:
    with RunningBridge(tmp_path, queue, topic, endpoint_url="http://127.0.0.1:1") as bridge:
        wait_for(lambda: bridge.metric("bridge_ready", dependency="sqs") == 0, "SQS was asked")
        assert bridge.metric("bridge_ready", dependency="kafka") == 1, "it has not been asked"
        assert bridge.metric("bridge_receivers_asking") == 1
        assert bridge.metric("bridge_last_poll_timestamp_seconds") == 0
        status, says = bridge.health("/readyz")
        assert (status, says["started"], says["sqs"]["ok"], says["kafka"]["ok"]) == (503, False, False, True)
        assert "nobody listens at 127.0.0.1:1 (AWS_ENDPOINT_URL_SQS" in says["sqs"]["problem"]
        assert bridge.wait_for_event("sqs_failing")["problem"] == says["sqs"]["problem"]
        assert bridge.health("/livez")[0] == 200
        assert bridge.stop() < 12
