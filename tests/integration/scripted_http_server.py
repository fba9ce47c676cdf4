"""An HTTP server whose answers are bytes that a test writes, so that they can be as broken as the test likes."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Self

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Heard:
    """One request."""

    connection: int
    """Which of the connections it came on, counted from 1."""
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def by_boto3(self) -> bool:
        """Whether boto3 made it: it numbers its requests."""
        return "amz-sdk-invocation-id" in self.headers


@dataclass(frozen=True, slots=True)
class Said:
    """What is sent, piece by piece, and whether the connection is closed then."""

    pieces: Iterable[bytes]
    closes: bool = False


Script = Callable[[Heard], Said]


class ScriptedHttpServer:
    """Asks ``script`` what to answer. ``heard`` are all requests, ``closed`` is set when it has closed a connection."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.heard: list[Heard] = []
        self.closed = threading.Event()
        self._scheme = "http" if tls is None else "https"
        self._connections = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                client: socket.socket = self.request
                with contextlib.suppress(OSError):
                    with tls.wrap_socket(client, server_side=True) if tls else client as speaking:
                        outer._serve(speaking)
                    outer.closed.set()

        class Server(ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._connections += 1
            connection = self._connections
        with client.makefile("rb") as reading:
            while first := reading.readline():
                headers = {}
                while (line := reading.readline().decode("latin-1").strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = reading.read(int(headers.get("content-length", 0)))
                heard = Heard(connection, first.split()[1].decode(), headers, body)
                with self._lock:
                    self.heard.append(heard)
                said = self.script(heard)
                for piece in said.pieces:
                    client.sendall(piece)
                if said.closes:
                    return


def http(status: int, body: bytes | Mapping[str, Any], *headers: str) -> bytes:
    """A whole answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/x-amz-json-1.0", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def says(*answers: Said | bytes) -> Script:
    """These answers, one a request; the last one again and again."""
    left = list(answers)

    def script(_: Heard) -> Said:
        answer = left.pop(0) if len(left) > 1 else left[0]
        return Said((answer,)) if isinstance(answer, bytes) else answer

    return script
