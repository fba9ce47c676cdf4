"""Kept-alive connections, against a server that says what each test has written."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from httptools import HttpParserError
from integration.certificate_authority import Authority
from integration.scripted_http_server import HOST, Heard, Said, Script, ScriptedHttpServer, http, says

from bridges import http_connections
from bridges.http_connections import HTTP_ERRORS, AnswerTooLongError, Connections, WaitToRead

REQUEST = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nask"
ANSWER = http(200, b"answer")


class Scene:
    """A server with a script, and connections to it."""

    def __init__(self, stack: ExitStack, script: Script, **options: object) -> None:
        self.server = stack.enter_context(ScriptedHttpServer(script))
        values = {"connect_seconds": 5.0, "answer_seconds": 5.0, "answer_bytes_max": 1_000_000, **options}
        self.connections = Connections(HOST, self.server.port, None, **values)  # type: ignore[arg-type]
        stack.callback(self.connections.close)

    def ask(self, wait_to_read: WaitToRead | None = None) -> bytes:
        return bytes(self.connections.exchange(REQUEST, wait_to_read).content)

    def used(self) -> list[int]:
        """Which connection each request came on."""
        return [heard.connection for heard in self.server.heard]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def test_one_connection_serves_one_request_after_the_other(stack: ExitStack) -> None:
    scene = Scene(stack, says(http(200, b"one"), http(404, b"two", "X-Reason: none"), http(200, b"")))
    assert scene.ask() == b"one"
    answer = scene.connections.exchange(REQUEST)
    assert (answer.status, bytes(answer.content)) == (404, b"two")
    assert (b"X-Reason", b"none") in answer.headers
    assert scene.ask() == b""
    assert scene.used() == [1, 1, 1]
    assert scene.server.heard[0].body == b"ask"


def test_threads_that_ask_at_the_same_time_have_a_connection_each(stack: ExitStack) -> None:
    meet = threading.Barrier(3)

    def script(_: Heard) -> Said:
        meet.wait(5)
        return Said((ANSWER,))

    scene = Scene(stack, script)
    threads = [threading.Thread(target=scene.ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(scene.used()) == [1, 2, 3]


@pytest.mark.parametrize("fresh_seconds", [0.0, 60.0], ids=["seen before it is used", "found out by using it"])
def test_a_connection_that_the_server_closed_meanwhile_is_replaced(
    stack: ExitStack, fresh_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connections, "_FRESH_SECONDS", fresh_seconds)
    scene = Scene(stack, says(Said((ANSWER,), closes=True), ANSWER))
    assert scene.ask() == b"answer"
    assert scene.server.closed.wait(5)
    assert scene.ask() == b"answer"
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2, 2]


def test_what_a_server_says_unasked_is_no_answer(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As load balancers do before they close a connection that was idle for too long."""
    monkeypatch.setattr(http_connections, "_FRESH_SECONDS", 0.0)
    idle_for_too_long = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield ANSWER
        idle_for_too_long.wait(5)
        yield http(408, b"idle")

    scene = Scene(stack, says(Said(pieces(), closes=True), ANSWER))
    assert scene.ask() == b"answer"
    idle_for_too_long.set()
    assert scene.server.closed.wait(5)
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2]


def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one(stack: ExitStack) -> None:
    scene = Scene(stack, says(ANSWER + http(200, b"behind"), ANSWER))
    assert scene.ask() == b"answer"
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2]


def test_a_connection_that_the_server_will_close_is_not_used_again(stack: ExitStack) -> None:
    scene = Scene(stack, says(http(200, b"last", "Connection: close"), ANSWER))
    assert scene.ask() == b"last"
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2]


def test_an_answer_may_come_in_chunks_and_pieces(stack: ExitStack) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nansw\r\n2\r\ner\r\n0\r\n\r\n"
    scene = Scene(stack, says(Said(tuple(bytes([byte]) for byte in chunked)), ANSWER))
    assert scene.ask() == b"answer"
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 1]


def test_a_long_answer_is_read_when_whoever_asked_has_room_for_it(stack: ExitStack) -> None:
    """Only what came at once is read before."""
    goes_on, sent_later = threading.Event(), []

    def pieces() -> Iterator[bytes]:
        answer = http(200, b"x" * 100_000)
        yield answer[:1_000]
        goes_on.wait(5)
        sent_later.append(len(answer) - 1_000)
        yield answer[1_000:]

    def wait_to_read(length: int) -> None:
        assert sent_later == []
        waited_for.append(length)
        goes_on.set()

    waited_for: list[int] = []
    scene = Scene(stack, says(Said(pieces()), ANSWER))
    assert scene.ask(wait_to_read) == b"x" * 100_000
    assert waited_for == [100_000]
    assert scene.ask(wait_to_read) == b"answer"
    assert waited_for == [100_000], "a short one is there already"


def test_a_long_answer_in_chunks_may_become_as_long_as_the_longest(stack: ExitStack) -> None:
    chunk = b"3e8\r\n" + b"x" * 1_000 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    waited_for: list[int] = []
    scene = Scene(stack, says(Said((head, *[chunk] * 200, b"0\r\n\r\n"))))
    assert scene.ask(waited_for.append) == b"x" * 200_000
    assert waited_for == [1_000_000]


def test_an_answer_for_which_there_will_be_no_room_is_not_read(stack: ExitStack) -> None:
    class NoRoomError(Exception):
        pass

    def wait_to_read(_: int) -> None:
        raise NoRoomError

    answer = http(200, b"x" * 100_000)
    scene = Scene(stack, says(Said((answer[:1_000], answer[1_000:])), ANSWER))
    with pytest.raises(NoRoomError):
        scene.ask(wait_to_read)
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n1\r\nx\r\n",
    ],
    ids=["announced", "in chunks"],
)
def test_an_answer_that_is_longer_than_any_is_an_error(stack: ExitStack, answer: bytes) -> None:
    scene = Scene(stack, says(Said((answer,)), ANSWER))
    with pytest.raises(AnswerTooLongError):
        scene.ask()
    assert scene.ask() == b"answer"


def test_nothing_is_kept_of_an_answer_while_its_connection_is_idle(stack: ExitStack) -> None:
    scene = Scene(stack, says(http(200, b"x" * 900_000)))
    scene.ask()
    (connection,) = scene.connections._idle
    assert (connection._answers, len(connection._body)) == ([], 0)


def test_half_an_answer_is_an_error_and_nothing_is_sent_again(stack: ExitStack) -> None:
    scene = Scene(stack, says(ANSWER, Said((ANSWER[:-2],), closes=True), ANSWER))
    scene.ask()
    with pytest.raises(ConnectionError, match="before its answer was whole"):
        scene.ask()
    assert scene.used() == [1, 1]
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 1, 2]


def test_a_new_connection_that_is_closed_without_an_answer_is_an_error(stack: ExitStack) -> None:
    scene = Scene(stack, says(Said((), closes=True)))
    with pytest.raises(ConnectionError):
        scene.ask()
    assert scene.used() == [1]


def test_silence_ends_after_the_time_that_was_given(stack: ExitStack) -> None:
    leave = threading.Event()
    scene = Scene(stack, lambda _: Said((), closes=leave.wait(5)), answer_seconds=0.05)
    with pytest.raises(TimeoutError):
        scene.ask()
    leave.set()


def test_what_is_no_http_is_an_error(stack: ExitStack) -> None:
    scene = Scene(stack, says(b"\0\0\0 not HTTP at all\r\n\r\n", ANSWER))
    with pytest.raises(HttpParserError):
        scene.ask()
    assert scene.ask() == b"answer"
    assert scene.used() == [1, 2]


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(HTTP_ERRORS):
        Connections(HOST, 1, None, connect_seconds=1, answer_seconds=1, answer_bytes_max=1).exchange(REQUEST)


def test_a_certificate_must_be_of_a_known_authority_and_for_the_host(stack: ExitStack, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "authority", "authority"), Authority(tmp_path / "other", "other")

    def ask(host: str, known: Authority) -> bytes:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(*authority.issue("server", host))
        server = stack.enter_context(ScriptedHttpServer(says(ANSWER), serving))
        tls = ssl.create_default_context(cafile=known.file)
        connections = Connections(HOST, server.port, tls, connect_seconds=5, answer_seconds=5, answer_bytes_max=1_000)
        stack.callback(connections.close)
        connections.exchange(REQUEST)
        return bytes(connections.exchange(REQUEST).content)

    assert ask(HOST, authority) == b"answer"
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(HOST, other)
    with pytest.raises(ssl.SSLCertVerificationError):
        ask("127.0.0.2", authority)
