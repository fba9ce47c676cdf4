"""An HTTP proxy before a real SQS server that can answer instead of it, hold requests back, or change its answers."""

import json
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

Rule = Callable[[str, dict[str, Any]], "tuple[int, dict[str, Any]] | None"]
"""Called with the operation and the request; an answer (status, body), or None to ask the server. May block."""


class SqsProxy:
    """``.endpoint_url`` instead of the server's; ``.rules`` are asked in order, ``.requests`` counts by operation."""

    def __init__(self, endpoint_url: str) -> None:
        server = urlsplit(endpoint_url)
        self.rules: list[Rule] = []
        self.requests: dict[str, int] = {}
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # the name is http.server's
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                with proxy._lock:
                    proxy.requests[operation] = proxy.requests.get(operation, 0) + 1
                for rule in list(proxy.rules):
                    answer = rule(operation, json.loads(body))
                    if answer is not None:
                        self._answer(answer[0], json.dumps(answer[1]).encode())
                        return
                connection = HTTPConnection(str(server.hostname), server.port, timeout=60)
                try:
                    connection.request("POST", self.path, body, dict(self.headers.items()))
                    response = connection.getresponse()
                    self._answer(response.status, response.read())
                finally:
                    connection.close()

            def _answer(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-amz-json-1.0")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client was killed

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was killed is no event."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def error(status: int, code: str) -> tuple[int, dict[str, Any]]:
    """An answer as SQS words its errors."""
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": "made up by the test"}


def first(number: int, operation: str, answer: tuple[int, dict[str, Any]]) -> Rule:
    """Answer the first ``number`` requests of ``operation`` so; the others go to the server."""
    left = iter(range(number))

    def rule(asked: str, _: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        return answer if asked == operation and next(left, None) is not None else None

    return rule
