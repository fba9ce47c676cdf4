"""A small HTTP server for a few pages. One thread and a bounded number of connections, whatever its clients do.

Promise: a client that asks and reads gets its answer, however many others don't. It holds because no connection is waited for: all
are non-blocking and share one thread; each has one deadline for its whole request and one for its whole answer, so that a byte now
and then buys no time; and one that comes while all places are taken gets that of whoever has dawdled longest. An answer is made in
that thread: what makes it must not block.

One request a connection, GET or HEAD, without a body; what else a client sends is read and dropped.
"""

import errno
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from threading import Thread
from urllib.parse import urlsplit

import structlog

log = structlog.stdlib.get_logger("pipeline.http_server")

CONNECTIONS_MAX = 32
"""At a time; a file descriptor each. A Prometheus, its standby, a kubelet and a person need a handful."""

REQUEST_SECONDS = 5.0
"""From a connection's beginning to the end of its request's head."""

REQUEST_BYTES_MAX = 8_192

ANSWER_SECONDS = 10.0
"""From then on: until the answer is sent and the client has closed. Prometheus's own default for a scrape."""

ACCEPT_PAUSE_SECONDS = 0.5
"""When no connection can be accepted, for want of file descriptors: it stays ready, and asking at once would be a busy loop."""

_TICK_SECONDS = 0.5
_BACKLOG = 128
_CHUNK_BYTES = 65_536
_METHODS = ("GET", "HEAD")
_ALLOW = ("Allow", ", ".join(_METHODS))
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """By lower-cased name."""
    client: str
    """The address of the connection's other end. Headers that name another one are anybody's word."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What it gets; the length, the date and the connection's end are added."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain; charset=utf-8"),)


class RefusedRequestError(Exception):
    """The request is answered with ``status`` and nothing else."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def parse_head(head: bytes, client: str) -> Request:
    """The request of a whole head, without the empty line that ends it. Raises :class:`RefusedRequestError`."""
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
        url = urlsplit(target)
    except ValueError:
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST) from None
    if not version.startswith("HTTP/1."):
        raise RefusedRequestError(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise RefusedRequestError(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip()
    if method not in _METHODS:
        raise RefusedRequestError(HTTPStatus.METHOD_NOT_ALLOWED)
    return Request(method, url.path, url.query, headers, client)


def to_bytes(answer: Answer, *, with_body: bool = True) -> bytes:
    """An answer as it goes to the client."""
    headers = [
        *answer.headers,
        ("Content-Length", str(len(answer.body))),
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    start = f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n{head}\r\n".encode("latin-1")
    return start + answer.body if with_body else start


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, of IPv4 or IPv6 as the address asks for; ``::`` takes both. Raises :class:`OSError`."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    dual_stack = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    client: str
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    answered: bool = False
    to_send: memoryview = field(default_factory=lambda: memoryview(b""))

    @property
    def precedence(self) -> tuple[bool, float]:
        """Whoever has the least loses its place: first those that nothing is being sent to, among these the oldest."""
        return bool(self.to_send), self.deadline


class HttpServer:
    """Answers with what ``answer`` says of each request, in a thread of its own."""

    def __init__(
        self, listener: socket.socket, answer: Callable[[Request], Answer], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        listener.setblocking(False)  # noqa: FBT003 - the library's own signature
        self._listener = listener
        self._answer = answer
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._connections: set[_Connection] = set()
        self._accepts_from = 0.0
        self._stopping = False
        self._thread = Thread(target=self._serve, name="operations", daemon=True)

    def start(self) -> None:
        """Serve until :meth:`stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Close everything, within a second. Not before :meth:`start`."""
        self._stopping = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(2 * _TICK_SECONDS)

    @property
    def has_died(self) -> bool:
        """Whether the thread has ended by an error: nobody answers any more."""
        return not self._stopping and not self._thread.is_alive()

    def _serve(self) -> None:
        with closing(self._listener), self._selector:
            while not self._stopping:
                for key, _ in self._selector.select(_TICK_SECONDS):
                    if key.data is None:
                        self._accept()
                    elif key.data in self._connections:  # else it has just lost its place
                        self._go_on(key.data)
                self._look_at_the_clock()
            for connection in list(self._connections):
                self._close(connection)

    def _accept(self) -> None:
        """Take one connection and what it has sent already: who asks at once is answered before anybody else can come."""
        if len(self._connections) >= CONNECTIONS_MAX:
            self._close_one()
        try:
            accepted, address = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                self._pause_accepting()
            return
        accepted.setblocking(False)  # noqa: FBT003 - the library's own signature
        connection = _Connection(accepted, str(address[0]), self._monotonic() + REQUEST_SECONDS)
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)
        self._go_on(connection)

    def _pause_accepting(self) -> None:
        """There are no file descriptors left. One that a client of ours holds is given back."""
        self._selector.unregister(self._listener)
        self._accepts_from = self._monotonic() + ACCEPT_PAUSE_SECONDS
        if self._connections:
            self._close_one()

    def _look_at_the_clock(self) -> None:
        now = self._monotonic()
        for connection in [each for each in self._connections if each.deadline <= now]:
            self._close(connection)
        if self._accepts_from and now >= self._accepts_from:
            self._accepts_from = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _go_on(self, connection: _Connection) -> None:
        """Do what can be done without waiting."""
        try:
            if connection.to_send:
                self._send(connection)
                return
            received = connection.socket.recv(_CHUNK_BYTES)
            if not received:
                self._close(connection)
            elif not connection.answered:
                connection.received += received
                self._read(connection)
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone
            self._close(connection)

    def _read(self, connection: _Connection) -> None:
        received = connection.received
        head, end, _ = received.partition(_END_OF_HEAD)
        with_body = not received.startswith(b"HEAD ")
        if len(head) > REQUEST_BYTES_MAX:
            answer = refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif end:
            answer = self._answered(bytes(head), connection.client)
        elif not received[:1].isalpha():  # no method begins so; TLS does
            answer = refusal(HTTPStatus.BAD_REQUEST)
        else:
            return
        connection.answered = True
        connection.received = bytearray()
        connection.deadline = self._monotonic() + ANSWER_SECONDS
        connection.to_send = memoryview(to_bytes(answer, with_body=with_body))
        self._send(connection)

    def _answered(self, head: bytes, client: str) -> Answer:
        try:
            return self._answer(parse_head(head, client))
        except RefusedRequestError as error:
            return refusal(error.status)
        except Exception:  # whatever it is: it must not end the thread that answers /livez
            log.exception("page_failed")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, connection: _Connection) -> None:
        with suppress(BlockingIOError):
            while connection.to_send:
                connection.to_send = connection.to_send[connection.socket.send(connection.to_send) :]
            # What the client still sends is read until it closes: closing first, with something unread, could void the answer.
            connection.socket.shutdown(socket.SHUT_WR)
        wanted = selectors.EVENT_WRITE if connection.to_send else selectors.EVENT_READ
        self._selector.modify(connection.socket, wanted, connection)

    def _close_one(self) -> None:
        self._close(min(self._connections, key=lambda connection: connection.precedence))

    def _close(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


def refusal(status: HTTPStatus) -> Answer:
    """An answer that says no more than its status."""
    answer = Answer(status, f"{status.value} {status.phrase}\n".encode())
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return Answer(answer.status, answer.body, (*answer.headers, _ALLOW))
    return answer
