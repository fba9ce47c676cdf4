"""``/metrics``, ``/livez`` and ``/readyz`` of a process, served from a thread of its own.

The thread answers when the process's event loop or main thread hangs: that is when ``/livez`` must say so. A port that is taken
gives way to the next free one, so that a second worker on one machine starts like the first.

What a health check says in a server's words may name hosts, users and databases. It is told to a client at a loopback address, and
to one that knows the token; any other learns what is waited for, and a code.
"""

import errno
import hmac
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, cast
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, make_wsgi_app
from pydantic import SecretStr

from pipeline.errors import FatalError, SettingsError
from pipeline.http_server import Answer, HttpServer, Request, listen
from pipeline.secret_files import read_secret_file

PORTS_TRIED_MAX = 100

TOKEN_CHARACTERS_MIN = 16

_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
_JSON = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


@dataclass(frozen=True, slots=True)
class Health:
    """What a health endpoint answers: 200 when ``ok``, else 503. Never a record's value."""

    ok: bool
    details: Mapping[str, Any] = field(default_factory=dict)
    """What is waited for, for everybody who can reach the port: names and codes."""
    in_words: Mapping[str, Any] = field(default_factory=dict)
    """Takes the place of the details of the same name for who may read what servers say."""


class Pages:
    """What each path answers. The checks are called from the server's thread, and must not block."""

    def __init__(
        self,
        registry: CollectorRegistry,
        livez: Callable[[], Health],
        readyz: Callable[[], Health],
        token: SecretStr | None = None,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/livez": livez, "/readyz": readyz}
        self._token = token

    def answer(self, request: Request) -> Answer:
        """The page that is asked for."""
        if request.path == "/metrics":
            return _called(self._metrics, request)
        if request.path not in self._checks:
            return Answer(HTTPStatus.NOT_FOUND, b"there is /metrics, /livez and /readyz\n", _TEXT)
        health = self._checks[request.path]()
        details = {**health.details, **(health.in_words if self._may_read(request) else {})}
        return Answer(
            HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE,
            json.dumps({"ok": health.ok, **details}).encode() + b"\n",
            _JSON,
        )

    def _may_read(self, request: Request) -> bool:
        if is_loopback(request.client):
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return (
            self._token is not None
            and scheme.lower() == "bearer"
            and hmac.compare_digest(token.strip().encode(), self._token.get_secret_value().encode())
        )


class OperationsServer:
    """Serves the pages on ``bind:port``. ``settings``: how the names of the settings begin that say so, such as ``BRIDGE_WEB``."""

    def __init__(self, bind: str, port: int, pages: Pages, *, settings: str) -> None:
        self._bind = bind
        self._wanted_port = port
        self._pages = pages
        self._settings = settings
        self._listener: socket.socket | None = None
        self._server: HttpServer | None = None

    @property
    def port(self) -> int:
        """The port that is served; only while bound."""
        if self._listener is None:
            raise RuntimeError("the operations server is not bound")
        return int(self._listener.getsockname()[1])

    def crash(self) -> str | None:
        """What is wrong when its thread has ended by an error: nobody would hear of anything any more."""
        return "the thread that serves /livez has ended" if self._server is not None and self._server.has_died else None

    def bind(self) -> None:
        """Take the wanted port or the next free one (0: any). Raises :class:`FatalError` when none can be had. Starts no thread."""
        last = self._wanted_port if self._wanted_port == 0 else min(self._wanted_port + PORTS_TRIED_MAX - 1, 65_535)
        for port in range(self._wanted_port, last + 1):
            try:
                self._listener = listen(self._bind, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise FatalError(
                    f"{self._settings}_BIND, {self._settings}_PORT: can't serve /metrics on {self._bind!r}, port {port}: "
                    f"{error.strerror}"
                ) from error
            return
        raise FatalError(
            f"{self._settings}_PORT: no free port from {self._wanted_port} to {last} on {self._bind} for /metrics; set another one"
        )

    def start(self) -> None:
        """Serve; :meth:`bind` first if that was not done. The thread takes the signals that the calling one takes."""
        if self._listener is None:
            self.bind()
        server = HttpServer(cast("socket.socket", self._listener), self._pages.answer)
        server.start()
        self._server = server  # only now: crash() takes one that has not begun for one that has ended

    def stop(self) -> None:
        """Stop serving. Safe when not started."""
        if self._server is not None:
            self._server.stop()
        self._server = self._listener = None


def read_token(path: Path | None, setting: str) -> SecretStr | None:
    """The token that lets a client read what servers say. Raises :class:`SettingsError` that names ``setting``."""
    if path is None:
        return None
    token = read_secret_file(path, setting)
    text = token.get_secret_value()
    if len(text) < TOKEN_CHARACTERS_MIN or not all("!" <= character <= "~" for character in text):
        raise SettingsError(
            f"{setting}: expected {TOKEN_CHARACTERS_MIN} characters or more in the file it names, ASCII without spaces; "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one"
        )
    return token


def is_loopback(address: str) -> bool:
    """Whether it is an address of this machine for itself; also where IPv6 shows one of IPv4 (``::ffff:127.0.0.1``)."""
    parsed = ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return (mapped or parsed).is_loopback


def _called(application: WSGIApplication, request: Request) -> Answer:
    """What a WSGI application answers to a GET."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
        started.append((status, headers))
        return lambda _: None

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "HTTP_ACCEPT": request.headers.get("accept", ""),
        "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
    }
    try:
        body = b"".join(application(environ, start_response))
    except (TypeError, ValueError):  # prometheus_client trips over some Accept headers: then it is asked without one
        started.clear()
        body = b"".join(application({**environ, "HTTP_ACCEPT": ""}, start_response))
    ((status, headers),) = started
    return Answer(HTTPStatus(int(status.split(" ", 1)[0])), body, tuple(headers))
