"""``/metrics``, ``/livez`` and ``/readyz`` of a process, served from a thread of its own.

The thread answers when the process's event loop or main thread hangs: that is when ``/livez`` must say so. A port that is taken
gives way to the next free one, so that a second worker on one machine starts like the first.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from pipeline.errors import FatalError

PORTS_TRIED_MAX = 100


@dataclass(frozen=True, slots=True)
class Health:
    """What a health endpoint answers: 200 when ``ok``, else 503; ``details`` says what is waited for. Never a record's value."""

    ok: bool
    details: Mapping[str, Any] = field(default_factory=dict)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True  # a restart does not wait for the old sockets' last minute
    request_queue_size = 16

    def server_bind(self) -> None:
        """Bind without WSGIServer's reverse look-up of the host's name, which can hang for seconds."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _SilentHandler(WSGIRequestHandler):
    timeout = 10  # a reader that stalls gives its thread back

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the overridden method's name
        """Say nothing: a scrape is no event."""


class OperationsServer:
    """Serves one registry and two health checks on ``bind:port``; the checks are called from the server's threads."""

    def __init__(
        self,
        bind: str,
        port: int,
        registry: CollectorRegistry,
        livez: Callable[[], Health],
        readyz: Callable[[], Health],
    ) -> None:
        self._bind = bind
        self._wanted_port = port
        self._metrics = make_wsgi_app(registry)
        self._checks = {"/livez": livez, "/readyz": readyz}
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is served; only while started."""
        if self._server is None:
            raise RuntimeError("the operations server is not started")
        return int(self._server.server_port)

    def start(self) -> None:
        """Listen on the wanted port or the next free one (0: any). Raises :class:`FatalError` when none can be had."""
        last = self._wanted_port if self._wanted_port == 0 else min(self._wanted_port + PORTS_TRIED_MAX - 1, 65_535)
        for port in range(self._wanted_port, last + 1):
            try:
                self._server = make_server(self._bind, port, self._serve, _Server, _SilentHandler)
            except OSError:
                continue
            Thread(target=self._server.serve_forever, name="operations", daemon=True).start()
            return
        raise FatalError(
            f"no free port from {self._wanted_port} to {last} on {self._bind} for /metrics; set another web port or address"
        )

    def stop(self) -> None:
        """Stop serving. Safe when not started."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return cast("Iterable[bytes]", self._metrics(environ, start_response))
        if path not in self._checks:
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"there is /metrics, /livez and /readyz\n"]
        health = self._checks[path]()
        start_response(
            "200 OK" if health.ok else "503 Service Unavailable",
            [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
        )
        return [json.dumps({"ok": health.ok, **health.details}).encode() + b"\n"]
