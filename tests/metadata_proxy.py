"""A proxy before one Kafka node that can answer as Kafka does while all its nodes are fenced: topics are there, and no node.

It leaves alone all but the answers to Metadata requests.

An answer without nodes is followed by the connection's end, as when the node then stops. That is what makes librdkafka 2.16 deaf
(its issue #5301): the lost connection plans a new bootstrap; the answer, still being read, cancels it; the note that one is planned
stays, so that none is planned again. The answer names many topics, so that the connection ends while it is read.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self

from dev_servers.ports import HOST

_METADATA, _VERSION_MIN = 3, 10
_NO_NODES, _NO_CONTROLLER = b"\x01", (-1).to_bytes(4, signed=True)
_TOPICS = 5_000
TRIES = 10


class MetadataProxy:
    """Listens on ``.port`` for as long as it is entered."""

    def __init__(self, kafka_port: int, port: int) -> None:
        """``kafka_port``: the listener that tells clients ``port``; see ``proxy_port`` of :class:`dev_servers.kafka.Kafka`."""
        self.kafka_port = kafka_port
        self.port = port
        self.hides_nodes = False
        """Set: answers to Metadata requests name topics and no node."""
        self.hidden = 0
        """Answers in which nodes were hidden."""
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), name=f"metadata proxy {self.port}")

    @property
    def bootstrap_servers(self) -> str:
        """What clients are given."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def without_nodes(self, answer: bytes) -> bytes:
        """An answer to a Metadata request, with no node, no controller, and more topics."""
        reader = _Reader(answer, at=4 + 1 + 4)  # behind the number of the request, no tagged fields, and throttle_time_ms
        changed = bytearray(answer[: reader.at])
        for _ in range(reader.unsigned() - 1):
            reader.at += 4
            reader.string()
            reader.at += 4
            reader.string()
            assert reader.unsigned() == 0, "a node has no tagged fields"
        cluster_at = reader.at
        reader.string()
        changed += _NO_NODES + answer[cluster_at : reader.at] + _NO_CONTROLLER
        reader.at += 4
        changed += _unsigned(reader.unsigned() + _TOPICS)
        for number in range(_TOPICS):
            changed += _unknown_topic(f"none-{number}".encode())
        self.hidden += 1
        return bytes(changed) + answer[reader.at :]


def deafen(proxy: MetadataProxy, reaches: Callable[[], bool]) -> None:
    """Let a client ask while no node is told, until it can reach Kafka no more although nodes are told again.

    ``reaches``: has the client ask Kafka; whether it was answered. One such answer is usually enough, but it is a race.
    """
    for _ in range(TRIES):
        hidden = proxy.hidden
        proxy.hides_nodes = True
        while proxy.hidden == hidden:
            reaches()
        proxy.hides_nodes = False
        if not reaches():
            return
    raise AssertionError("librdkafka recovers from an answer without nodes: what was made for its issue #5301 can go")


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, proxy: MetadataProxy) -> None:
        super().__init__((HOST, proxy.port), _Connection)
        self.proxy = proxy


class _Connection(BaseRequestHandler):
    """One client's connection, and ours to the node in its name."""

    server: _Listener

    def handle(self) -> None:
        self._asked: set[bytes] = set()  # numbers of Metadata requests without an answer
        with suppress(OSError), socket.create_connection((HOST, self.server.proxy.kafka_port)) as node:
            answering = threading.Thread(target=self._pass_answers, args=(node,), daemon=True)
            answering.start()
            with suppress(OSError):
                self._pass_requests(node)
            node.shutdown(socket.SHUT_RDWR)
            answering.join()

    def _pass_requests(self, node: socket.socket) -> None:
        for request in _frames(self.request):
            if int.from_bytes(request[:2]) == _METADATA:
                assert int.from_bytes(request[2:4]) >= _VERSION_MIN, "older ones have another form"
                self._asked.add(request[4:8])
            node.sendall(_frame(request))

    def _pass_answers(self, node: socket.socket) -> None:
        with suppress(OSError):
            for answer in _frames(node):
                proxy = self.server.proxy
                is_metadata = answer[:4] in self._asked
                self._asked.discard(answer[:4])
                if is_metadata and proxy.hides_nodes:
                    self.request.sendall(_frame(proxy.without_nodes(answer)))
                    break
                self.request.sendall(_frame(answer))
            self.request.shutdown(socket.SHUT_RDWR)


class _Reader:
    """Where we are in an answer, in the compact form of Kafka's protocol."""

    def __init__(self, answer: bytes, at: int) -> None:
        self._answer = answer
        self.at = at

    def unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._answer[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def string(self) -> None:
        """Pass over one; 0 is the length of none, all others are one more than they say."""
        length = self.unsigned()
        self.at += max(0, length - 1)


def _unsigned(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _unknown_topic(name: bytes) -> bytes:
    """UNKNOWN_TOPIC_OR_PARTITION, name, no id, not internal, no partitions, rights not told, no tagged fields."""
    return b"\0\3" + _unsigned(len(name) + 1) + name + bytes(16) + b"\0" + b"\1" + b"\x80\0\0\0" + b"\0"


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def _frames(connection: socket.socket) -> Iterator[bytes]:
    with connection.makefile("rb") as stream:
        while len(length := stream.read(4)) == 4:
            yield stream.read(int.from_bytes(length))
