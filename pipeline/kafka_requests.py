"""The two requests of Kafka's protocol that need no client: what a server can do, and which nodes it tells clients to use.

In their oldest forms that Kafka 4 still takes, so that they are the same for all: ApiVersions 0 and Metadata 1.
"""

import re
import socket
import struct
import time
from typing import Final

from pipeline.kafka_addresses import Address

API_VERSIONS: Final = (18, 0)
METADATA: Final = (3, 1)

_CLIENT_ID: Final = b"login-stream-look"
_ANSWER_BYTES_MAX: Final = 4 * 1_048_576
_HOST: Final = re.compile(r"[\w.:%-]{1,255}")
_PORT_MAX: Final = 65_535
_NO_TOPICS: Final = struct.pack(">i", 0)


class NotKafkaError(Exception):
    """What came is no answer of Kafka's; ``beginning`` is its first bytes, empty when the connection was closed instead."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__("no answer of Kafka's")
        self.beginning = beginning


def ask_api_versions(connection: socket.socket, deadline: float) -> None:
    """Have a server show that it is a Kafka. Raises :class:`NotKafkaError` and what sockets raise, until ``deadline``."""
    _exchange(connection, deadline, API_VERSIONS, b"", number=1)


def ask_nodes(connection: socket.socket, deadline: float) -> dict[int, Address]:
    """The nodes that a Kafka tells its clients to connect to, by id. Raises likewise."""
    answer = _exchange(connection, deadline, METADATA, _NO_TOPICS, number=2)
    try:
        return _nodes(answer)
    except (struct.error, UnicodeDecodeError):
        raise NotKafkaError(answer[:8]) from None


def _exchange(connection: socket.socket, deadline: float, kind: tuple[int, int], body: bytes, number: int) -> bytes:
    request = struct.pack(">hhih", *kind, number, len(_CLIENT_ID)) + _CLIENT_ID + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    head = _read(connection, deadline, 8)
    size, answered = struct.unpack(">ii", head)
    rest = size - struct.calcsize(">i")  # the number of the request is the first of what is counted
    if answered != number or not 0 <= rest <= _ANSWER_BYTES_MAX:
        raise NotKafkaError(head)
    return _read(connection, deadline, rest)


def _read(connection: socket.socket, deadline: float, size: int) -> bytes:
    """So many bytes. A connection that ends before has said something else than Kafka would."""
    parts = bytearray()
    while len(parts) < size:
        connection.settimeout(max(0.01, deadline - time.monotonic()))  # for all together, however slowly they come
        part = connection.recv(size - len(parts))
        if not part:
            raise NotKafkaError(bytes(parts[:8]))
        parts += part
    return bytes(parts)


def _nodes(answer: bytes) -> dict[int, Address]:
    (count,), at = struct.unpack_from(">i", answer), 4
    nodes = {}
    for _ in range(count):
        node_id, host_bytes = struct.unpack_from(">ih", answer, at)
        at += 6
        host = answer[at : at + host_bytes].decode()
        port, rack_bytes = struct.unpack_from(">ih", answer, at + host_bytes)
        at += host_bytes + 6 + max(0, rack_bytes)
        if not _HOST.fullmatch(host) or not 0 < port <= _PORT_MAX:  # it goes into log lines
            raise NotKafkaError(answer[:8])
        nodes[node_id] = Address(host, port)
    return nodes
