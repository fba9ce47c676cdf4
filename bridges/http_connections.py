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
from dataclasses import dataclass

from httptools import HttpParserError, HttpResponseParser

HTTP_ERRORS = (OSError, HttpParserError)
"""What :meth:`Connections.exchange` raises: the network, TLS, the time, or an answer that is no HTTP."""

_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_RECEIVE_BYTES = 65_536
_FRESH_SECONDS = 1.0  # hardly a server closes a connection so soon, and to look whether it did costs as much as to send


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    content: bytes


class Connections:
    """Of as many threads as like; there are never more connections than threads that asked at the same time."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, connect_seconds: float, answer_seconds: float) -> None:
        """``answer_seconds`` is the longest silence before or within an answer. Opens no connection."""
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._idle: deque[_Connection] = deque()

    def exchange(self, request: bytes) -> HttpAnswer:
        """Send a whole request and wait for its answer. Raises one of :data:`HTTP_ERRORS`."""
        if (connection := self._pop_idle()) is not None:
            try:
                return self._exchange(connection, request)
            except _CLOSED:
                if connection.has_answered:
                    raise
        return self._exchange(self._connect(), request)

    def close(self) -> None:
        """Close those that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, connection: "_Connection", request: bytes) -> HttpAnswer:
        try:
            answer = connection.exchange(request)
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
        return _Connection(connected)


class _Connection:
    """One connection, used by one thread at a time. The methods ``on_…`` are called by the parser."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._news = select.poll()
        self._news.register(connected, select.POLLIN)
        self._parser = HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._answers: list[HttpAnswer] = []
        self._answered_at = 0.0
        self.has_answered = False
        """Whether any byte has come since the last request."""
        self.stays_open = False
        """Whether the last answer was whole and lets another request follow."""

    def exchange(self, request: bytes) -> HttpAnswer:
        self._answers = []
        self.has_answered = self.stays_open = False
        self._socket.sendall(request)
        while not self._answers:
            received = self._socket.recv(_RECEIVE_BYTES)
            if not received:
                raise ConnectionAbortedError("the server closed the connection before its answer was whole")
            self.has_answered = True
            self._parser.feed_data(received)
        return self._answers[0]

    def is_stale(self) -> bool:
        """Whether something came that nobody asked for; the end of the connection is such a thing."""
        return time.monotonic() > self._answered_at + _FRESH_SECONDS and bool(self._news.poll(0))

    def close(self) -> None:
        self._socket.close()

    def on_message_begin(self) -> None:
        self._headers, self._body = [], []
        self.stays_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        self._answers.append(HttpAnswer(self._parser.get_status_code(), self._headers, b"".join(self._body)))
        self._answered_at = time.monotonic()
        self.stays_open = len(self._answers) == 1 and self._parser.should_keep_alive()
