"""What is said of a Kafka that can't be reached: of listeners that are no Kafka, and of a real one with listeners of each kind."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from bad_listeners import answering, closes, says, silent, swallowing, trickles
from integration.certificate_authority import Authority

from dev_servers.kafka import Kafka
from dev_servers.ports import HOST, free_port
from pipeline import kafka_reachability
from pipeline.errors import RetryableError
from pipeline.kafka_addresses import parse_addresses
from pipeline.kafka_reachability import Reachability, look_at
from pipeline.settings import KafkaSettings, load

NAMES_NOBODY = "kafka.invalid"


@dataclass(frozen=True)
class Listeners:
    """Of one real Kafka."""

    plain: str
    tls: str
    login: str
    far: str
    """Tells clients to connect to ``nowhere``."""
    nowhere: str


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    directory = tmp_path_factory.mktemp("listeners")
    certificate, key = Authority(directory / "authority", "authority").issue("kafka", HOST)
    keystore = directory / "keystore.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    plain, tls, login, far, nowhere, controller = (free_port() for _ in range(6))
    with Kafka(
        directory / "kafka",
        {
            "listeners": f"PLAINTEXT://{HOST}:{plain},TLS://{HOST}:{tls},LOGIN://{HOST}:{login},FAR://{HOST}:{far},"
            f"CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{plain},TLS://{HOST}:{tls},LOGIN://{HOST}:{login},FAR://{HOST}:{nowhere}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,TLS:SSL,LOGIN:SASL_PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": str(keystore),
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": (
                'org.apache.kafka.common.security.plain.PlainLoginModule required user_made="up";'
            ),
        },
        port=plain,
    ):
        yield Listeners(*(f"{HOST}:{port}" for port in (plain, tls, login, far, nowhere)))


def problem(*servers: str, seconds: float = 3.0) -> str | None:
    return look_at(parse_addresses(",".join(servers)), seconds)


def test_a_kafka_that_answers_and_whose_nodes_do_is_no_problem(listeners: Listeners) -> None:
    assert problem(listeners.plain) is None


def test_one_good_server_among_bad_ones_is_no_problem(listeners: Listeners) -> None:
    with silent() as deaf:
        assert problem(f"{HOST}:1", deaf, listeners.plain, seconds=1.0) is None


def test_an_advertised_listener_that_nobody_reaches_is_told_with_the_setting_of_kafkas(listeners: Listeners) -> None:
    says = problem(listeners.far) or ""
    assert f"tells clients to connect to node 1 at {listeners.nowhere}, but nobody listens at {listeners.nowhere}" in says
    assert "advertised.listeners" in says


def test_a_tls_listener_of_kafkas_is_known(listeners: Listeners) -> None:
    assert problem(listeners.tls) == f"{listeners.tls} speaks TLS; this connection is plaintext (KAFKA_BOOTSTRAP_SERVERS)"


def test_a_listener_that_wants_a_login_is_known(listeners: Listeners) -> None:
    assert "answered the first request and then closed the connection: does its listener want a login" in str(
        problem(listeners.login)
    )


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        (silent, "takes connections and does not answer within 1 s"),
        (swallowing, "takes no connection within 1 s"),
        (partial(answering, trickles), "takes connections and does not answer within 1 s"),
        (partial(answering, closes), "closes connections without an answer"),
        (partial(answering, says(b"HTTP/1.1 400 Bad Request\r\n\r\n")), "speaks HTTP"),
        (partial(answering, says(b"\x15\x03\x03\0\2\2\x50")), "speaks TLS; this connection is plaintext"),
        (partial(answering, says(b"SSH-2.0-made-up\r\n")), "not as Kafka does"),
        (partial(answering, says(b"\0")), "not as Kafka does"),
        (partial(answering, says(b"\x7f\xff\xff\xff\0\0\0\1")), "not as Kafka does"),
    ],
)
def test_what_is_no_kafka_is_told(listener: Callable[[], AbstractContextManager[str]], expected: str) -> None:
    with listener() as address:
        found = problem(address, seconds=1.0) or ""
    assert expected in found
    assert found.startswith(address)
    assert found.endswith("(KAFKA_BOOTSTRAP_SERVERS)")


def test_where_nobody_listens_is_told() -> None:
    assert problem(f"{HOST}:1") == f"nobody listens at {HOST}:1 (KAFKA_BOOTSTRAP_SERVERS)"
    assert problem("[::1]:1") in {
        "nobody listens at [::1]:1 (KAFKA_BOOTSTRAP_SERVERS)",
        "[::1]:1 can't be reached (Cannot assign requested address) (KAFKA_BOOTSTRAP_SERVERS)",  # a machine without IPv6
    }


def test_a_name_without_an_address_is_told_and_each_other_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(socket.gaierror(socket.EAI_NONAME, "made up")))
    assert problem(f"{HOST}:1", f"{NAMES_NOBODY}:9092") == (
        f"nobody listens at {HOST}:1; {NAMES_NOBODY} has no address: no name server knows it (KAFKA_BOOTSTRAP_SERVERS)"
    )


def test_name_servers_that_are_away_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver(socket.gaierror(socket.EAI_AGAIN, "made up")))
    assert str(problem(f"{NAMES_NOBODY}:9092")).startswith(f"no name server tells the address of {NAMES_NOBODY} now")


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", resolver(lambda: ended.wait(30)))
    began = time.monotonic()
    found = problem(f"{NAMES_NOBODY}:9092", seconds=0.5) or ""
    ended.set()
    assert found.startswith(f"no name server tells the address of {NAMES_NOBODY} within 0.5 s")
    assert time.monotonic() - began < 10


def test_many_bad_servers_are_one_line_of_bounded_length() -> None:
    found = problem(*(f"{HOST}:{port}" for port in range(1, 11))) or ""
    assert found.count("nobody listens") == kafka_reachability.PROBLEMS_MAX
    assert found.endswith("; and 6 more (KAFKA_BOOTSTRAP_SERVERS)")


def test_the_error_of_a_client_is_told_in_words_of_what_was_found_and_found_once_in_a_while() -> None:
    now, looks = 0.0, []

    def look(servers: Any) -> str | None:
        looks.append(servers)
        return "nobody listens" if len(looks) == 1 else None

    settings = load(KafkaSettings, kafka_bootstrap_servers="a:1,b:2")
    reachability = Reachability(settings, look, lambda: now)
    error = RetryableError("Kafka did not answer")
    assert str(reachability.explain(error)) == "nobody listens"
    assert str(reachability.explain(error)) == "nobody listens"
    assert looks == [settings.kafka_servers]
    now = kafka_reachability.LOOK_AGAIN_SECONDS
    explained = reachability.explain(error)
    assert re.fullmatch("Kafka did not answer; a new connection to Kafka is answered", str(explained))
    assert explained.__cause__ is error


def resolver(answer: Exception | Callable[[], Any]) -> Callable[..., Any]:
    """Resolves everything but NAMES_NOBODY as the machine does."""
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: Any, **options: Any) -> Any:
        if host != NAMES_NOBODY:
            return real(host, *arguments, **options)
        if isinstance(answer, Exception):
            raise answer
        answer()
        return []

    return resolve
