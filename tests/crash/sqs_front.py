"""An HTTP server before a real SQS: it can answer in its place, change an answer, hold a request back, or reset a connection.

Where :mod:`crash.proxy` breaks what knows no protocol, this one breaks what only SQS's protocol shows. A rule is a function that is
given each request and returns an answer, or None to let the next rule or the server decide. ``heal`` takes all rules away and lets
go of what they hold back. What rules answered is counted, so that a fault can prove that it took place.
"""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import Any, Self
from urllib.parse import urlsplit

from crash.proxy import RESET_ON_CLOSE
from dev_servers.ports import HOST

SERVER_SECONDS = 60.0
TARGET = "X-Amz-Target"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. Status 0: the connection is reset instead."""

    status: int
    body: bytes = b""

    @property
    def json(self) -> dict[str, Any]:
        """What SQS says in it."""
        return dict(json.loads(self.body))


RESET = Answer(0)
GARBAGE = (
    Answer(200, b"\0<html>not what was asked for</html>"),
    Answer(200, b'{"Messages": [{"Body": 7}], "Successful": [{"Id": "99"}], "Failed": [{}]}'),
    Answer(200, b'{"Messages": [{"MessageId": "cut off he'),
)
"""No JSON, JSON of another shape, half of an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to SQS."""

    operation: str
    body: dict[str, Any]
    ask: Callable[[str, Mapping[str, Any]], Answer]
    """Ask the server: an operation and its body."""

    def forward(self, **changes: Any) -> Answer:
        """Ask the server the same, with these changes."""
        return self.ask(self.operation, {**self.body, **changes})


Rule = Callable[[Request], Answer | None]


class SqsFront:
    """``.endpoint_url`` instead of the server's, for as long as it is entered; ``.rules`` are asked in order."""

    def __init__(self, server_url: str) -> None:
        self.rules: list[Rule] = []
        self.requests: Counter[str] = Counter()
        """All, by operation."""
        self.interfered: Counter[str] = Counter()
        """Those that a rule answered, by operation."""
        self._server = urlsplit(server_url)
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, name="SQS front", daemon=True)

    @property
    def endpoint_url(self) -> str:
        """What boto3 is given."""
        return f"http://{HOST}:{self._listener.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._listener.shutdown()
        self._listener.server_close()

    def heal(self) -> None:
        """Be as if it were not there."""
        self.rules.clear()
        healed, self._healed = self._healed, threading.Event()
        healed.set()

    def hold(self, seconds: float) -> bool:
        """For rules: wait so long, or until it is healed; whether the time is over."""
        return not self._healed.wait(seconds)

    def answer(self, operation: str, body: bytes, headers: Mapping[str, str], path: str) -> Answer:
        """What a client is answered."""
        with self._lock:
            self.requests[operation] += 1

        def ask(operation: str, body: Mapping[str, Any]) -> Answer:
            return self._ask(path, {**headers, TARGET: f"AmazonSQS.{operation}"}, json.dumps(body).encode())

        for rule in list(self.rules):
            if (answer := rule(Request(operation, json.loads(body), ask))) is not None:
                with self._lock:
                    self.interfered[operation] += 1
                return answer
        return self._ask(path, headers, body)

    def _ask(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = HTTPConnection(str(self._server.hostname), self._server.port, timeout=SERVER_SECONDS)
        try:
            own = {name: value for name, value in headers.items() if name.lower() not in {"content-length", "host"}}
            connection.request("POST", path, body, own)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, front: SqsFront) -> None:
        self.front = front
        super().__init__((HOST, 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or a server that is away, is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_POST(self) -> None:  # the name is http.server's
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers[TARGET].rpartition(".")[2]
        answer = self.server.front.answer(operation, body, dict(self.headers.items()), self.path)
        if answer.status == RESET.status:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.connection.close()
            self.close_connection = True
            return
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except OSError:
            self.close_connection = True  # the client was killed

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def answer(body: Mapping[str, Any]) -> Answer:
    """An answer that SQS could give."""
    return Answer(200, json.dumps(body).encode())


def error(status: int, code: str) -> Answer:
    """An answer as SQS words its errors."""
    return Answer(status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "made up by the test"}).encode())


def first(number: int, operation: str, answer: Answer) -> Rule:
    """Answer the first ``number`` requests of ``operation`` so; the others go on."""
    left = iter(range(number))
    return lambda request: answer if request.operation == operation and next(left, None) is not None else None


def each(answer: Answer, *operations: str) -> Rule:
    """Answer each request of these operations so; of all if none is named."""
    return lambda request: answer if not operations or request.operation in operations else None


def in_turn(*answers: Answer) -> Rule:
    """Answer each request by the next of these."""
    turns = cycle(answers)
    return lambda _: next(turns)


def half_refused(request: Request) -> Answer | None:
    """A rule: SQS does the second half of each batch, and says of the first that it failed."""
    entries = request.body.get("Entries")
    if entries is None:
        return None
    failing, working = entries[: (len(entries) + 1) // 2], entries[(len(entries) + 1) // 2 :]
    done = request.forward(Entries=working).json if working else {}
    failed = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in failing]
    return answer({**done, "Failed": [*done.get("Failed", ()), *failed]})


class Thrice:
    """A rule: what is received for the first or second time is visible at once again, for others to receive it too."""

    def __init__(self) -> None:
        self.thirds = 0
        """Messages that were received for the third time."""

    def __call__(self, request: Request) -> Answer | None:
        """The server's own answer, after it was made to give the messages out again."""
        if request.operation != "ReceiveMessage":
            return None
        received = request.forward()
        messages = received.json.get("Messages", ())
        counts = [int(message["Attributes"]["ApproximateReceiveCount"]) for message in messages]
        self.thirds += counts.count(3)
        entries = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0}
            for index, (message, count) in enumerate(zip(messages, counts, strict=True))
            if count <= 2
        ]
        if entries:
            request.ask("ChangeMessageVisibilityBatch", {"QueueUrl": request.body["QueueUrl"], "Entries": entries})
        return received
