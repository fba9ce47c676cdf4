"""Listeners that are no Kafka, or a bad one: what a client meets at a wrong, broken or overloaded address."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from dev_servers.ports import HOST

READ_BYTES = 65_536


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never answers, as a process that hangs; its ``host:port``."""
    with socket.create_server((HOST, 0), backlog=1_024) as listener:
        yield _address(listener)


@contextmanager
def swallowing() -> Iterator[str]:
    """Never answers a SYN, as a firewall that drops packets: its queue is full (tcp_abort_on_overflow is off by default)."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server((HOST, 0), backlog=0))
        while True:
            client = opened.enter_context(socket.socket())
            client.settimeout(0.3)  # one that is answered is so in microseconds
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield _address(listener)


@contextmanager
def answering(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """Each connection is handled by ``handle``, then closed; its ``host:port``."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    handle(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield _address(listener)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def closes(connection: socket.socket) -> None:
    """Once the request is there: with no answer."""
    connection.recv(READ_BYTES)


def says(answer: bytes) -> Callable[[socket.socket], None]:
    """The same answer to any request."""

    def handle(connection: socket.socket) -> None:
        connection.recv(READ_BYTES)
        connection.sendall(answer)

    return handle


def trickles(connection: socket.socket) -> None:
    """A byte of an answer now and then, and no end of it."""
    connection.recv(READ_BYTES)
    connection.sendall(b"\0\0\1\0\0\0\0\1")
    while True:
        connection.sendall(b"\0")
        time.sleep(0.1)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"
