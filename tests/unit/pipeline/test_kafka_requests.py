import socket
import struct
import time

import pytest

from pipeline.kafka_addresses import Address
from pipeline.kafka_requests import NotKafkaError, ask_nodes


class MadeUpConnection(socket.socket):
    """Takes any request and gives one answer, a few bytes at a time."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def sendall(self, *_: object) -> None:
        return

    def settimeout(self, _: float | None, /) -> None:
        return

    def recv(self, size: int, _: int = 0, /) -> bytes:
        part, self.answer = self.answer[: min(size, 7)], self.answer[min(size, 7) :]
        return part


def answer(*nodes: tuple[int, bytes, int, bytes | None], number: int = 2) -> bytes:
    """To Metadata 1, as the protocol's documentation has it."""
    body = struct.pack(">ii", number, len(nodes))
    for node_id, host, port, rack in nodes:
        body += struct.pack(">ih", node_id, len(host)) + host + struct.pack(">i", port)
        body += struct.pack(">h", -1) if rack is None else struct.pack(">h", len(rack)) + rack
    body += struct.pack(">ii", 1, 0)
    return struct.pack(">i", len(body)) + body


def nodes(said: bytes) -> dict[int, Address]:
    return ask_nodes(MadeUpConnection(said), time.monotonic() + 10)


def test_the_nodes_are_read() -> None:
    said = answer((1, b"b-1.kafka.example", 9092, None), (2, b"::1", 9093, b"rack-b"))
    assert nodes(said) == {1: Address("b-1.kafka.example", 9092), 2: Address("::1", 9093)}
    assert nodes(answer()) == {}


@pytest.mark.parametrize(
    "said",
    [
        b"",
        answer((1, b"kafka", 9092, None))[:20],
        answer((1, b"kafka", 9092, None), number=3),
        struct.pack(">iii", 8, 2, 1_000_000),
        struct.pack(">ii", -1, 2),
        answer((1, b"kafka\nforged line", 9092, None)),
        answer((1, b"\xff\xfe", 9092, None)),
        answer((1, b"", 9092, None)),
        answer((1, b"kafka", 0, None)),
        answer((1, b"kafka", 70_000, None)),
    ],
)
def test_what_is_no_such_answer_is_no_kafka(said: bytes) -> None:
    with pytest.raises(NotKafkaError):
        nodes(said)
