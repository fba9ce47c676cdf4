"""What the bridge's process takes of the machine's memory when every body is as large as SQS allows, whatever is in it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from integration.running_bridge import Queue, QueuePlace, RunningBridge, Topic, wait_for
from integration.scripted_http_server import Heard, Said, ScriptedHttpServer, http

from bridges.memory import answer_bytes, answer_length_max
from bridges.settings import RECEIVE_MESSAGES_MAX, BridgeSettings
from dev_servers.elasticmq import ElasticMq
from dev_servers.kafka import Kafka

MEBIBYTE = 1_048_576
BODY_CHARACTERS = MEBIBYTE - 64
IDLE_BYTES = 80 * MEBIBYTE
LARGEST_ANSWER_BYTES = answer_bytes(answer_length_max(RECEIVE_MESSAGES_MAX), RECEIVE_MESSAGES_MAX)
IN_FLIGHT_BYTES_MAX = BridgeSettings(sqs_queue_url="http://127.0.0.1/1/q").bridge_in_flight_bytes_max
RESIDENT_BYTES_MAX = IDLE_BYTES + max(IN_FLIGHT_BYTES_MAX, LARGEST_ANSWER_BYTES)
"""What docs/performance.md and docker-compose.yml rest on; 200 messages took 450 to 930 MiB when only their bodies were counted."""

PLAIN = "a" * BODY_CHARACTERS
QUOTES = '"' * BODY_CHARACTERS
EMOJI = "\N{GRINNING FACE}" * (BODY_CHARACTERS // 4)
ONE_EMOJI = PLAIN[4:] + "\N{GRINNING FACE}"
ESCAPED_LETTERS = b'"' + rb"\u0061" * BODY_CHARACTERS + b'"'


def as_json(body: str) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def peak_bytes(bridge: RunningBridge) -> int:
    status = Path(f"/proc/{bridge.child.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1_024


class LargeQueue:
    """An SQS that gives out so many messages with this body, as fast as it is asked; small ones first, if it is told to."""

    def __init__(self, json_body: bytes, messages: int, small_messages: int = 0) -> None:
        self._json_body = json_body
        self._left = messages + small_messages
        self._small_from = messages
        self._lock = threading.Lock()
        self.deleted = 0
        self.idle = threading.Event()
        """Set: do not wait for a message that will not come."""

    def __call__(self, heard: Heard) -> Said:
        operation = heard.headers["x-amz-target"].rpartition(".")[2]
        request = json.loads(heard.body)
        if operation == "ReceiveMessage":
            with self._lock:
                numbers = range(self._left, max(0, self._left - request["MaxNumberOfMessages"]), -1)
                self._left -= len(numbers)
            if not numbers:
                self.idle.wait(request["WaitTimeSeconds"])
            return Said(self._pieces(numbers))
        entries = request.get("Entries", [])
        if operation == "DeleteMessageBatch":
            with self._lock:
                self.deleted += len(entries)
        attributes = {"VisibilityTimeout": "30"}
        return Said((http(200, {"Attributes": attributes, "Successful": [{"Id": entry["Id"]} for entry in entries]}),))

    def _pieces(self, numbers: range) -> Iterator[bytes]:
        messages = [
            (
                b'{"MessageId": "00000000-0000-4000-8000-%012d", "ReceiptHandle": "%d", "Body": ' % (number, number),
                self._json_body if number <= self._small_from else b'"small"',
                b"}",
            )
            for number in numbers
        ]
        length = sum(len(piece) for message in messages for piece in message) + max(0, len(messages) - 1)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (length + len(b'{"Messages": []}')) + b'{"Messages": ['
        for index, message in enumerate(messages):
            yield from ((b",", *message) if index else message)
        yield b"]}"


@pytest.mark.parametrize(
    ("json_body", "small_messages"),
    [
        (as_json(PLAIN), 0),
        (as_json(QUOTES), 0),
        (as_json(ONE_EMOJI), 0),
        (as_json(ONE_EMOJI), 2_000),
        (ESCAPED_LETTERS, 2_000),
    ],
    ids=["plain", "quotes", "one emoji", "one emoji, behind small ones", "escaped letters, behind small ones"],
)
def test_200_bodies_of_1_mib_fit_beside_an_idle_bridge(json_body: bytes, small_messages: int, kafka: Kafka, tmp_path: Path) -> None:
    """From a server faster than any. Behind small ones, all receivers ask for ten messages each when the large ones come."""
    number = 200 + small_messages
    large = LargeQueue(json_body, 200, small_messages)
    with ScriptedHttpServer(large) as server:
        place = QueuePlace(server.url, f"{server.url}/1/large")
        with RunningBridge(tmp_path, place, Topic(kafka.bootstrap_servers), BRIDGE_RECEIVERS="8") as bridge:
            wait_for(lambda: large.deleted >= number, "all messages deleted", 120)
            expect_all_forwarded(bridge, number)
            assert peak_bytes(bridge) < RESIDENT_BYTES_MAX
        large.idle.set()


def test_large_bodies_of_a_real_queue_fit_beside_an_idle_bridge(kafka: Kafka, elasticmq: ElasticMq, tmp_path: Path) -> None:
    """As many as a test has time for: ElasticMQ takes longer to take them in than the bridge to forward them."""
    queue, number = Queue(elasticmq.endpoint_url), 30
    memory = {"BRIDGE_RECEIVERS": "8", "BRIDGE_IN_FLIGHT_BYTES_MAX": str(16 * MEBIBYTE)}
    bodies = [PLAIN, QUOTES, EMOJI] * (number // 3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda body: queue.client.send_message(QueueUrl=queue.url, MessageBody=body), bodies))
    topic = Topic(kafka.bootstrap_servers)
    with RunningBridge(tmp_path, queue, topic, **memory) as bridge:
        wait_for(queue.is_empty, "all messages deleted", 120)
        expect_all_forwarded(bridge, number)
        assert peak_bytes(bridge) < IDLE_BYTES + answer_bytes(RECEIVE_MESSAGES_MAX * 2 * MEBIBYTE, RECEIVE_MESSAGES_MAX)
    assert sorted(record.value for record in topic.records()) == sorted(body.encode() for body in bodies)


def expect_all_forwarded(bridge: RunningBridge, number: int) -> None:
    assert bridge.metric("bridge_messages_forwarded_total") == number
    wait_for(lambda: bridge.metric("bridge_in_flight_bytes") == 0, "nothing is in memory")
