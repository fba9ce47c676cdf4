"""The operations server over real sockets: what its clients do does not keep others from their answers."""

import json
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from pipeline import http_server
from pipeline.errors import FatalError
from pipeline.http_server import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Answer, HttpServer, Request, listen
from pipeline.operations import Health, OperationsServer, Pages

HOST = "127.0.0.1"
SLOW_CLIENTS = 250
ANSWER_BYTES = 32 * 1_048_576
"""More than the system takes off a client that does not read."""


def pages(readyz: Callable[[], Health] = lambda: Health(ok=True)) -> Pages:
    registry = CollectorRegistry()
    Counter("made_up", "For the test.", registry=registry).inc(3)
    return Pages(registry, lambda: Health(ok=True, details={"seconds": 1}), readyz)


def server(port: int = 0, bind: str = HOST, readyz: Callable[[], Health] = lambda: Health(ok=True)) -> OperationsServer:
    return OperationsServer(bind, port, pages(readyz), settings="MADE_UP_WEB")


@pytest.fixture
def started() -> Iterator[OperationsServer]:
    it = server()
    it.start()
    yield it
    it.stop()


def asked(
    port: int, path: str = "/livez", method: str = "GET", host: str = HOST, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    with closing(HTTPConnection(host, port, timeout=5)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def connected(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection((HOST, port), 5)
    client.sendall(sent)
    return client


def is_closed(client: socket.socket) -> bool:
    """Waits until the other end closes; whatever comes before that is dropped."""
    try:
        while client.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    return True


def answer_to(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_each_page_is_served_and_there_is_nothing_else(started: OperationsServer) -> None:
    assert asked(started.port, "/metrics")[:1] == (200,)
    assert b"made_up_total 3.0" in asked(started.port, "/metrics")[1]
    status, body, headers = asked(started.port)
    assert (status, json.loads(body), headers["Content-Type"]) == (200, {"ok": True, "seconds": 1}, "application/json")
    assert asked(started.port, "/")[0] == 404


def test_head_is_answered_without_a_body_and_other_methods_are_told_which_there_are(started: OperationsServer) -> None:
    status, body, headers = asked(started.port, "/livez", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    with closing(HTTPConnection(HOST, started.port, timeout=5)) as connection:
        connection.request("POST", "/metrics", body=b"x" * 1_000_000)  # more than is read before the answer
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")


def test_a_port_that_is_taken_gives_way_to_the_next(started: OperationsServer) -> None:
    second = server(started.port)
    second.start()
    try:
        assert second.port > started.port
        assert asked(second.port)[0] == 200
    finally:
        second.stop()


@pytest.mark.parametrize(("bind", "host"), [("::1", "::1"), ("::", "::1"), ("::", HOST), ("localhost", HOST)])
def test_it_listens_on_what_the_address_names(bind: str, host: str) -> None:
    it = server(bind=bind)
    it.start()
    try:
        assert asked(it.port, host=host)[0] == 200
    finally:
        it.stop()


def test_a_client_of_this_machine_is_local_by_either_protocol() -> None:
    it = server(bind="::", readyz=lambda: Health(ok=False, details={"kafka": "code"}, in_words={"kafka": "words"}))
    it.start()
    try:
        for host in ("::1", HOST):
            assert json.loads(asked(it.port, "/readyz", host=host)[1])["kafka"] == "words"
    finally:
        it.stop()


@pytest.mark.parametrize(
    ("bind", "says"), [("192.0.2.1", "Cannot assign requested address"), ("2001:db8::1", "assign"), ("no.such.host.invalid", "")]
)
def test_an_address_that_cannot_be_had_is_told_by_its_setting_and_the_systems_own_words(bind: str, says: str) -> None:
    with pytest.raises(FatalError, match=f"^MADE_UP_WEB_BIND, MADE_UP_WEB_PORT: can't serve /metrics on '{bind}'.*{says}"):
        server(bind=bind).bind()


def test_what_is_taken_up_to_the_last_port_is_told_as_such() -> None:
    with closing(listen(HOST, 0)) as taken:
        port = taken.getsockname()[1]
        it = server(port)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("pipeline.operations.PORTS_TRIED_MAX", 1)
            with pytest.raises(FatalError, match=f"MADE_UP_WEB_PORT: no free port from {port} to {port}"):
                it.bind()


# --- clients that don't behave


def test_who_asks_is_answered_while_250_others_hold_half_a_request_each(started: OperationsServer) -> None:
    """As many as file descriptors allow hang, a byte every now and then; a probe gets through each time, from one thread."""
    threads = threading.active_count()
    with ExitStack() as open_clients:
        clients = []
        for _ in range(SLOW_CLIENTS):
            clients.append(open_clients.enter_context(closing(connected(started.port, b"GET /metrics HTTP/1.1\r\nX: "))))
            assert asked(started.port)[0] == 200
        assert asked(started.port, "/metrics")[0] == 200
        assert threading.active_count() == threads
        held = served_ports(started.port)
        assert sum(client.getsockname()[1] in held for client in clients) <= CONNECTIONS_MAX < SLOW_CLIENTS / 4


def served_ports(port: int) -> set[int]:
    """The clients' ports of connections that the server still holds open."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(local.split(":")[1], 16) == port and state == "01":  # established
            found.add(int(remote.split(":")[1], 16))
    return found


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def large_answer(_: Request) -> Answer:
    return Answer(HTTPStatus.OK, b"x" * ANSWER_BYTES)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port(clock: Clock) -> Iterator[int]:
    """Of a server whose clock stands still, and whose one answer is large."""
    listener = listen(HOST, 0)
    port = int(listener.getsockname()[1])
    it = HttpServer(listener, large_answer, clock)
    it.start()
    yield port
    it.stop()


def test_a_byte_now_and_then_buys_no_time(port: int, clock: Clock) -> None:
    with closing(connected(port, b"GET /livez HTTP/1.1\r\nX: ")) as client:
        wait_for_its_turn(port)
        for _ in range(4):
            clock.now += http_server.REQUEST_SECONDS / 5
            client.sendall(b"x")
        clock.now += http_server.REQUEST_SECONDS / 5
        assert is_closed(client)


def wait_for_its_turn(port: int) -> None:
    """Until what was sent before has been seen: who comes later is answered after it."""
    with closing(connected(port, b"HEAD / HTTP/1.1\r\n\r\n")) as another:
        assert answer_to(another)


def test_an_answer_that_is_not_taken_is_given_up(port: int, clock: Clock) -> None:
    with closing(connected(port, b"GET /metrics HTTP/1.1\r\n\r\n")) as client:
        wait_for_its_turn(port)
        clock.now += http_server.ANSWER_SECONDS
        wait_until_served_ports_are(port, set())
        assert len(answer_to(client)) < ANSWER_BYTES


def wait_until_served_ports_are(port: int, expected: set[int]) -> None:
    deadline = time.monotonic() + 10
    while served_ports(port) != expected:
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_a_large_answer_comes_whole_to_who_reads_it(port: int) -> None:
    with closing(connected(port, b"GET /metrics HTTP/1.1\r\n\r\n")) as client:
        head, _, body = answer_to(client).partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert len(body) == ANSWER_BYTES


def test_a_head_that_is_too_large_is_refused(started: OperationsServer) -> None:
    with closing(connected(started.port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * REQUEST_BYTES_MAX)) as client:
        assert answer_to(client).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS says hello
        b"\x00" * 100,
        b"NO SUCH THING\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /üäö\udcff HTTP/9\r\n\r\n".encode("utf-8", "surrogateescape"),
    ],
)
def test_what_is_no_request_is_refused_at_once_and_nothing_is_printed(
    started: OperationsServer, sent: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(connected(started.port, sent)) as client:
        assert answer_to(client).startswith(b"HTTP/1.1 400 ")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_client_that_breaks_off_anywhere_leaves_no_trace(
    started: OperationsServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    for length in range(len(request) + 1):
        client = connected(started.port, request[:length])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # close by a reset
        client.close()
    assert asked(started.port)[0] == 200
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_page_that_fails_is_500_and_a_log_line_and_the_next_is_served() -> None:
    def fail() -> Health:
        raise LookupError("made up")

    it = server(readyz=fail)
    it.start()
    try:
        with capture_logs() as lines:
            assert asked(it.port, "/readyz")[0] == 500
        assert [line["event"] for line in lines] == ["page_failed"]
        assert asked(it.port)[0] == 200
    finally:
        it.stop()


class CountingListener(socket.socket):
    accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        return super().accept()


def serve_without_descriptors(parent: Connection) -> None:
    """Serve in a process of its own, where nothing but this holds or frees a file descriptor.

    Sends the address; the seconds that two tries to accept took once a client waited; and how many tries there were in all.
    """
    listener = CountingListener(fileno=listen(HOST, 0).detach())
    it = HttpServer(listener, lambda _: Answer(HTTPStatus.OK, b"all is well\n"))
    it.start()
    _, hard = getrlimit(RLIMIT_NOFILE)
    with ExitStack() as filled:  # whatever is free below the limit
        setrlimit(RLIMIT_NOFILE, (64, hard))
        fill(filled)
        parent.send(listener.getsockname())
        wait_for(lambda: listener.accepts >= 1)
        began, tried = time.monotonic(), listener.accepts
        wait_for(lambda: listener.accepts >= tried + 2)
        parent.send(time.monotonic() - began)
    parent.recv()  # the client has its answer
    it.stop()
    parent.send(listener.accepts)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def fill(filled: ExitStack) -> None:
    while True:
        try:
            descriptor = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return
        filled.callback(os.close, descriptor)


def test_without_file_descriptors_it_waits_and_goes_on_when_there_are_some(capfd: pytest.CaptureFixture[str]) -> None:
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    server_process = spawning.Process(target=serve_without_descriptors, args=(there,))
    server_process.start()
    try:
        assert here.poll(30)
        with closing(socket.create_connection(here.recv(), timeout=60)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert here.poll(60)
            # Two pauses, less what had passed of the first when its try was seen.
            assert here.recv() > http_server.ACCEPT_PAUSE_SECONDS
            assert answer_to(client).endswith(b"all is well\n")
        here.send("answered")
        assert here.poll(30)
        assert here.recv() < 20  # tries: a pause lies between them, it is no busy loop
    finally:
        server_process.join(10)
        server_process.kill()
        server_process.join()
    assert server_process.exitcode == 0
    assert capfd.readouterr() == ("", "")
