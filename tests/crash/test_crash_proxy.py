"""The proxy breaks what it says, and counts it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from crash.faults.kafka import answer_to
from crash.proxy import Moment, Proxy
from dev_servers.ports import HOST


class Echo(StreamRequestHandler):
    """Answers each line with the line, and remembers it."""

    def handle(self) -> None:
        with suppress(ConnectionResetError):
            while line := self.rfile.readline():
                assert isinstance(self.server, EchoServer)
                self.server.lines.append(line)
                self.wfile.write(line)


class EchoServer(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Echo)
        self.lines: list[bytes] = []


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[Proxy]:
    with Proxy(server.server_address[1]) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), timeout=5) as connected:
        assert ask(connected, b"hello\n") == b"hello\n"
        yield connected


def ask(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line)
    return client.recv(1_024)


def wait_for(lines: list[bytes], number: int) -> None:
    deadline = time.monotonic() + 5
    while len(lines) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_passes_everything_in_both_directions(proxy: Proxy, client: socket.socket) -> None:
    line = b"x" * 1_000_000 + b"\n"
    threading.Thread(target=client.sendall, args=[line]).start()
    answer = b""
    while len(answer) < len(line):
        answer += client.recv(65_536)
    assert answer == line
    assert (proxy.connections, proxy.accepted, proxy.cut) == (1, 1, 0)


def test_delay_holds_back_each_way_and_what_is_sent_together_arrives_together(proxy: Proxy, client: socket.socket) -> None:
    proxy.slow_down(delay_seconds=0.2)
    began = time.monotonic()
    for number in range(5):
        client.sendall(b"%d\n" % number)
        time.sleep(0.01)
    answer = b""
    while len(answer) < 10:
        answer += client.recv(100)
    assert 0.4 <= time.monotonic() - began < 1.0
    proxy.heal()
    began = time.monotonic()
    ask(client, b"quick\n")
    assert time.monotonic() - began < 0.2


def test_bandwidth_is_limited(proxy: Proxy, client: socket.socket) -> None:
    proxy.slow_down(bytes_per_second=10_000)
    began = time.monotonic()
    client.sendall(b"x" * 2_000 + b"\n")
    answer = b""
    while len(answer) < 2_001:
        answer += client.recv(65_536)
    assert time.monotonic() - began >= 0.35


def test_silence_keeps_connections_and_passes_on_what_it_held_when_healed(
    proxy: Proxy, client: socket.socket, server: EchoServer
) -> None:
    proxy.fall_silent()
    client.sendall(b"held\n")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.recv(100)
    with socket.create_connection((HOST, proxy.port), timeout=0.3) as another, pytest.raises(TimeoutError):
        ask(another, b"nobody there\n")
    assert (server.lines, proxy.held_bytes) == ([b"hello\n"], 5)
    proxy.heal()
    client.settimeout(5)
    assert client.recv(100) == b"held\n"


def test_away_refuses_and_ends_what_is_open_until_healed(proxy: Proxy, client: socket.socket) -> None:
    proxy.go_away()
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), timeout=5)
    proxy.heal()
    with socket.create_connection((HOST, proxy.port), timeout=5) as another:
        assert ask(another, b"back\n") == b"back\n"


def test_open_connections_are_reset_and_new_ones_welcome(proxy: Proxy, client: socket.socket) -> None:
    assert proxy.cut_connections() == proxy.cut == 1
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    with socket.create_connection((HOST, proxy.port), timeout=5) as another:
        assert ask(another, b"new\n") == b"new\n"


def test_open_connections_can_be_closed_in_order(proxy: Proxy, client: socket.socket) -> None:
    assert proxy.cut_connections(reset=False) == 1
    assert client.recv(100) == b""


@pytest.mark.parametrize("moment", list(Moment))
def test_a_trap_cuts_the_request_that_it_waits_for_at_its_moment(
    proxy: Proxy, client: socket.socket, server: EchoServer, moment: Moment
) -> None:
    trap = proxy.trap(lambda chunk: b"commit" in chunk, moment)
    assert ask(client, b"another\n") == b"another\n"
    assert trap.sprung == 0
    with pytest.raises(ConnectionResetError):
        ask(client, b"commit\n")
    if moment is not Moment.BEFORE_FORWARDING:
        wait_for(server.lines, 3)
    assert server.lines[2:] == ([] if moment is Moment.BEFORE_FORWARDING else [b"commit\n"])
    assert (trap.sprung, trap.answered, proxy.cut) == (1, moment is Moment.AFTER_THE_ANSWER, 1)
    with socket.create_connection((HOST, proxy.port), timeout=5) as another:
        assert ask(another, b"commit again\n") == b"commit again\n", "it springs as often as it was told, no more"


def test_a_trap_waits_for_the_answer_to_its_own_request(proxy: Proxy, client: socket.socket, server: EchoServer) -> None:
    trap = proxy.trap(
        lambda chunk: b"commit" in chunk, Moment.AFTER_THE_ANSWER, answers=lambda request: lambda chunk: chunk == request
    )
    proxy.slow_down(delay_seconds=0.2)
    client.sendall(b"another\n")
    wait_for(server.lines, 1)  # its answer takes as long as it took
    client.sendall(b"commit\n")
    assert client.recv(100) == b"another\n"
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    assert (trap.sprung, trap.answered) == (1, 1)


def test_the_answer_to_a_request_of_kafka_is_known_by_its_number() -> None:
    def frame(number: int, body: bytes = b"") -> bytes:
        return (4 + len(body)).to_bytes(4) + number.to_bytes(4) + body

    request = bytes(8) + (7).to_bytes(4) + b"..."
    begins_in = answer_to(request)
    stream = frame(5, b"\0\0\0\x07" * 3) + frame(6) + frame(7, b"stored")
    begins_at = len(stream) - len(frame(7, b"stored"))
    seen = [begins_in(stream[place : place + 1]) for place in range(len(stream))]
    assert seen.index(True) == begins_at + 7, "its length and its number have been read"
    assert answer_to(request)(stream)
    assert not answer_to(request)(stream[:begins_at])


@pytest.mark.usefixtures("client")  # the connection of before
def test_a_server_that_is_away_shows_through(proxy: Proxy, server: EchoServer) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionResetError), socket.create_connection((HOST, proxy.port), timeout=5) as another:
        ask(another, b"anybody?\n")
