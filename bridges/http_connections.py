"""Kept-alive HTTP/1.1 connections to one server; knows nothing of what is asked.

Promise: an answer belongs to the request that was sent on its connection, so a connection is used again only after a whole answer
that leaves it open. What ends otherwise closes it.

A server may close a connection while nobody uses it. That is no failure: such a request goes out once more, on a new connection.
So it may reach the server twice, as with every HTTP client; ask only what may be repeated.
"""

import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from httptools import HttpParserError, HttpResponseParser

HTTP_ERRORS = (OSError, HttpParserError)
"""What :meth:`Connections.exchange` raises: the network, TLS, the time, or an answer that is no HTTP."""

WaitToRead = Callable[[int], None]
"""Called with the length of an answer's content before more of it is read than came at once: waits until there is room for so much.
What it raises ends the exchange."""

_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_RECEIVE_BYTES = 65_536
"""Of an answer that must wait, so much has been read, and what the system's own buffers take: less than 6 MiB."""
_LENGTH_NAME = b"content-length"
_LENGTH_NAME_LENGTH = len(_LENGTH_NAME)
_FRESH_SECONDS = 1.0  # hardly a server closes a connection so soon, and to look whether it did costs as much as to send


class AnswerTooLongError(Exception):
    """An answer has more content than any that we may ask for: nobody reads it."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytearray


class Connections:
    """Of as many threads as like; there are never more connections than threads that asked at the same time."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        connect_seconds: float,
        answer_seconds: float,
        answer_bytes_max: int,
    ) -> None:
        """``answer_seconds`` is the longest silence before or within an answer. Opens no connection."""
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._answer_bytes_max = answer_bytes_max
        self._idle: deque[_Connection] = deque()

    def exchange(self, request: bytes, wait_to_read: WaitToRead | None = None) -> HttpAnswer:
        """Send a whole request and wait for its answer. Raises one of :data:`HTTP_ERRORS`, and :class:`AnswerTooLongError`."""
        if (connection := self._pop_idle()) is not None:
            try:
                return self._exchange(connection, request, wait_to_read)
            except _CLOSED:
                if connection.has_answered:
                    raise
        return self._exchange(self._connect(), request, wait_to_read)

    def close(self) -> None:
        """Close those that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, connection: "_Connection", request: bytes, wait_to_read: WaitToRead | None) -> HttpAnswer:
        try:
            answer = connection.exchange(request, wait_to_read)
        except BaseException:
            connection.close()
            raise
        if connection.stays_open:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _pop_idle(self) -> "_Connection | None":
        """The one that was used last, so that those that are not needed are closed by the server in time."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not connection.is_stale():
                return connection
            connection.close()

    def _connect(self) -> "_Connection":
        plain = socket.create_connection((self._host, self._port), self._connect_seconds)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self._host)
            connected.settimeout(self._answer_seconds)
        except BaseException:
            plain.close()
            raise
        return _Connection(connected, self._answer_bytes_max)


class _Connection:
    """One connection, used by one thread at a time. The methods ``on_…`` are called by the parser."""

    def __init__(self, connected: socket.socket, answer_bytes_max: int) -> None:
        self._socket = connected
        self._answer_bytes_max = answer_bytes_max
        self._news = select.poll()
        self._news.register(connected, select.POLLIN)
        self._parser = HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None  # of the content, at most; None while it is not known
        self._body = bytearray()
        self._answers: list[HttpAnswer] = []
        self._answered_at = 0.0
        self.has_answered = False
        """Whether any byte has come since the last request."""
        self.stays_open = False
        """Whether the last answer was whole and lets another request follow."""

    def exchange(self, request: bytes, wait_to_read: WaitToRead | None) -> HttpAnswer:
        self.has_answered = self.stays_open = False
        self._socket.sendall(request)
        while not self._answers:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionAbortedError("the server closed the connection before its answer was whole")
            self.has_answered = True
            self._parser.feed_data(received)
            if not self._answers and self._length is not None:
                if max(self._length, len(self._body)) > self._answer_bytes_max:
                    raise AnswerTooLongError
                if wait_to_read is not None:
                    wait_to_read(self._length)
                    wait_to_read = None
        answer, self._answers = self._answers[0], []  # nor is it kept here: the next request may be hours away
        return answer

    def is_stale(self) -> bool:
        """Whether something came that nobody asked for; the end of the connection is such a thing."""
        return time.monotonic() > self._answered_at + _FRESH_SECONDS and bool(self._news.poll(0))

    def close(self) -> None:
        self._socket.close()

    def on_message_begin(self) -> None:
        self._headers, self._body, self._length = [], bytearray(), None
        self.stays_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if len(name) == _LENGTH_NAME_LENGTH and name.lower() == _LENGTH_NAME and value.isdigit():
            self._length = int(value)

    def on_body(self, part: bytes) -> None:
        self._body += part
        if self._length is None and len(self._body) > _RECEIVE_BYTES:
            self._length = self._answer_bytes_max  # in chunks, and by now as long as the server likes

    def on_message_complete(self) -> None:
        self._answers.append(HttpAnswer(self._parser.get_status_code(), self._headers, self._body))
        self._body = bytearray()
        self._answered_at = time.monotonic()
        self.stays_open = len(self._answers) == 1 and self._parser.should_keep_alive()
