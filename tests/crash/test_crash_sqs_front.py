"""The front before SQS breaks what it says, and counts it."""

import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from mypy_boto3_sqs import SQSClient

from crash.sqs_front import GARBAGE, RESET, Answer, Request, SqsFront, Thrice, each, error, first, half_refused, in_turn
from crash.workload import Queue, sqs_client
from dev_servers.elasticmq import ElasticMq


@pytest.fixture
def front(elasticmq: ElasticMq) -> Iterator[SqsFront]:
    with SqsFront(elasticmq.endpoint_url) as running:
        yield running


@pytest.fixture
def client(front: SqsFront) -> SQSClient:
    return sqs_client(front.endpoint_url)


@pytest.fixture
def url(client: SQSClient) -> Iterator[str]:
    queue = Queue(client, f"front-{secrets.token_hex(4)}", visibility_seconds=30)
    entries: list[Any] = [{"Id": str(number), "MessageBody": f"message {number}"} for number in range(4)]
    client.send_message_batch(QueueUrl=queue.url, Entries=entries)
    yield queue.url
    queue.delete()


def receive(client: SQSClient, url: str) -> list[Any]:
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    return answer.get("Messages", [])


def test_without_rules_it_is_as_if_it_were_not_there(front: SqsFront, client: SQSClient, url: str) -> None:
    assert sorted(message["Body"] for message in receive(client, url)) == [f"message {number}" for number in range(4)]
    assert front.requests["ReceiveMessage"] == 1
    assert front.interfered.total() == 0


def test_it_answers_with_errors_the_first_ones_only_or_each_until_healed(front: SqsFront, client: SQSClient, url: str) -> None:
    front.rules += [first(1, "ReceiveMessage", error(503, "ServiceUnavailable")), each(error(400, "RequestThrottled"))]
    codes = []
    for _ in range(3):
        with pytest.raises(ClientError) as refused:
            receive(client, url)
        codes.append(refused.value.response["Error"]["Code"].rpartition("#")[2])
    assert codes == ["ServiceUnavailable", "RequestThrottled", "RequestThrottled"]
    assert front.interfered == {"ReceiveMessage": 3}
    front.heal()
    assert len(receive(client, url)) == 4


def test_it_resets_connections(front: SqsFront, client: SQSClient, url: str) -> None:
    front.rules.append(each(RESET, "ReceiveMessage"))
    with pytest.raises(ConnectionClosedError):
        receive(client, url)
    front.heal()
    assert len(receive(client, url)) == 4


def test_it_answers_garbage_of_several_kinds(front: SqsFront, client: SQSClient, url: str) -> None:
    front.rules.append(in_turn(*GARBAGE))
    answers = [receive(client, url) for _ in range(2)]
    assert answers == [[], [{"Body": 7}]], "what boto3 makes of it"
    receive(client, url)
    assert front.interfered["ReceiveMessage"] == 3
    front.heal()
    assert len(receive(client, url)) == 4


def test_half_of_a_batch_fails_and_the_other_half_is_done(front: SqsFront, client: SQSClient, url: str) -> None:
    entries: list[Any] = [
        {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(receive(client, url))
    ]
    front.rules.append(half_refused)
    answer = client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Failed"]] == ["0", "1"]
    assert [entry["Id"] for entry in answer["Successful"]] == ["2", "3"]
    again = client.delete_message_batch(QueueUrl=url, Entries=entries[:1])
    assert [entry["Id"] for entry in again["Failed"]] == ["0"]
    front.heal()
    assert len(client.delete_message_batch(QueueUrl=url, Entries=entries[:2])["Successful"]) == 2


def test_each_message_is_received_three_times(front: SqsFront, client: SQSClient, url: str) -> None:
    rule = Thrice()
    front.rules.append(rule)
    counts = [[int(message["Attributes"]["ApproximateReceiveCount"]) for message in receive(client, url)] for _ in range(4)]
    assert counts == [[1] * 4, [2] * 4, [3] * 4, []]
    assert rule.thirds == 4


def test_what_a_rule_holds_back_goes_on_when_it_is_healed(front: SqsFront, client: SQSClient, url: str) -> None:
    held = threading.Event()
    waited_to_the_end: list[bool] = []

    def late(request: Request) -> Answer:
        answer = request.forward()
        held.set()
        waited_to_the_end.append(front.hold(30))
        return answer

    front.rules.append(late)
    began = time.monotonic()

    def heal_when_held() -> None:
        held.wait(10)
        front.heal()

    threading.Thread(target=heal_when_held).start()
    assert len(receive(client, url)) == 4
    assert waited_to_the_end == [False]
    assert time.monotonic() - began < 10
    assert front.hold(0.01)
