"""TLS in front of a real Postgres: the servers that come as wheels are built without it.

It answers libpq's SSLRequest as a server with ``ssl = on`` does (PostgreSQL's documentation, "SSL Session Encryption"), takes plain
sessions too, as such a server does, and passes on what is inside. The TLS is real, and what libpq checks of it.
"""

import contextlib
import select
import socket
import ssl
import struct
from pathlib import Path
from queue import Queue
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from types import TracebackType
from typing import Self

SSL_REQUEST = struct.pack("!ii", 8, 80_877_103)
SESSION_SECONDS = 10.0


class _Front(ThreadingTCPServer):
    daemon_threads = True
    context: ssl.SSLContext
    postgres_port: int
    sessions: Queue[str]


class _Session(BaseRequestHandler):
    server: _Front

    def handle(self) -> None:
        """One session, until either side has enough."""
        client: socket.socket = self.request
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.postgres_port)) as postgres:
            first = client.recv(8, socket.MSG_WAITALL)
            if first == SSL_REQUEST:
                client.sendall(b"S")
                try:
                    client = self.server.context.wrap_socket(client, server_side=True)
                except OSError:  # the other side said why, or only closed
                    self.server.sessions.put("refused")
                    return
                self.server.sessions.put(client.version() or "")
            else:
                self.server.sessions.put("plain")
                postgres.sendall(first)
            with client:
                pass_on(client, postgres)


def pass_on(client: socket.socket, postgres: socket.socket) -> None:
    """Carry bytes both ways until either side has enough."""
    others = {client: postgres, postgres: client}
    while True:
        ready, _, _ = select.select(list(others), [], [])
        for end in ready:
            data = end.recv(65_536)
            while isinstance(end, ssl.SSLSocket) and end.pending():
                data += end.recv(65_536)
            if not data:
                return
            others[end].sendall(data)


class PostgresTlsFront:
    """Serves ``certificate`` on ``.port``; with ``clients``, whoever connects must show a certificate of that authority."""

    def __init__(self, postgres_port: int, certificate: Path, key: Path, clients: Path | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server = _Front(("127.0.0.1", 0), _Session)
        self._server.context = context
        self._server.postgres_port = postgres_port
        self._server.sessions = Queue()
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def next_sessions(self, count: int) -> list[str]:
        """What each of the next sessions was: a protocol's name, "plain", or "refused" by the other side.

        They may be told here later than there. Raises ``queue.Empty`` when there are not so many.
        """
        return [self._server.sessions.get(timeout=SESSION_SECONDS) for _ in range(count)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
