"""A Postgres that refuses each session in a language of its own: the wheel's has no translations.

It speaks what comes before a session (PostgreSQL's documentation, "Frontend/Backend Protocol"): no TLS, a password if one is to be
asked for, and an ErrorResponse with the fields that a server sends.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

_TLS_OR_GSS = (struct.pack("!i", 80_877_103), struct.pack("!i", 80_877_104))
_WANTS_PASSWORD = b"R" + struct.pack("!ii", 8, 3)


@dataclass(frozen=True)
class Words:
    """One refusal, as the server's locale and the database's encoding have it."""

    severity: str
    code: str | None
    message: str
    encoding: str
    function: str = "auth_failed"
    after_password: bool = True

    def response(self) -> bytes:
        """An ErrorResponse."""
        fields = {
            "S": self.severity,
            "V": "FATAL",
            "C": self.code,
            "M": self.message,
            "F": "made_up.c",
            "L": "1",
            "R": self.function,
        }
        body = b"".join(name.encode() + text.encode(self.encoding) + b"\0" for name, text in fields.items() if text is not None)
        return b"E" + struct.pack("!i", len(body) + 5) + body + b"\0"


@dataclass(frozen=True)
class Bytes:
    """What no Postgres says."""

    content: bytes
    after_password: bool = False

    def response(self) -> bytes:
        """It."""
        return self.content


class _Server(ThreadingTCPServer):
    daemon_threads = True
    words: Words | Bytes


class _Session(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Until it has said its words."""
        client: socket.socket = self.request
        with contextlib.suppress(OSError):
            while _packet(client)[:4] in _TLS_OR_GSS:
                client.sendall(b"N")
            if self.server.words.after_password:
                client.sendall(_WANTS_PASSWORD)
                client.recv(1, socket.MSG_WAITALL)
                _packet(client)
            client.sendall(self.server.words.response())


def _packet(client: socket.socket) -> bytes:
    (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
    return client.recv(length - 4, socket.MSG_WAITALL)


@contextlib.contextmanager
def refusing(words: Words | Bytes) -> Iterator[int]:
    """Its port."""
    with _Server(("127.0.0.1", 0), _Session) as server:
        server.words = words
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()
