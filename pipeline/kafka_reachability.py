"""Why Kafka can't be reached, in words: looks up names, connects, asks, and connects where Kafka tells its clients to.

Clients say ``_TRANSPORT`` or ``KafkaConnectionError`` to all of it. A look is made with sockets of its own, after a client has
failed, and is bounded in time whatever the network does: names are looked up in threads, which may hang in the resolver for longer
than anybody waits for them.
"""

import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Final

from pipeline.errors import PipelineError, RetryableError, cause_code
from pipeline.kafka_addresses import Address
from pipeline.kafka_requests import NotKafkaError, ask_api_versions, ask_nodes
from pipeline.settings import KafkaSettings

LOOK_SECONDS: Final = 3.0
"""For the servers together, and for the nodes that they name. A server that takes longer may still be found by a client."""

LOOK_AGAIN_SECONDS: Final = 15.0
"""Until then what was found stands: clients fail more often than that."""

ADDRESSES_MAX: Final = 12
"""Looked at: all are at once, each in a thread of its own."""

PROBLEMS_MAX: Final = 4
"""Said."""

_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake
_HTTP: Final = b"HTTP"


class KafkaUnreachableError(RetryableError):
    """Kafka did not answer a client. ``code`` is the client's name for it, the text says why where that is known."""

    def __init__(self, problem: str, code: str) -> None:
        super().__init__(problem)
        self.code = code


@dataclass(frozen=True, slots=True)
class Found:
    """At one address."""

    problem: str | None
    nodes: dict[int, Address] = field(default_factory=dict)
    """Where this server tells clients to connect to."""


class Reachability:
    """Remembers the last look for a while. Thread-safe; blocks for up to twice LOOK_SECONDS."""

    def __init__(
        self,
        settings: KafkaSettings,
        look: Callable[[Collection[Address]], str | None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = settings.kafka_servers
        self._look = look_at if look is None else look
        self._monotonic = monotonic
        self._looking = Lock()
        self._looked_at = float("-inf")
        self._problem: str | None = None

    def explain(self, error: PipelineError) -> KafkaUnreachableError:
        """The error of a client that did not reach Kafka, in words of what was found."""
        problem = self._find()
        text = f"{error}; a new connection to Kafka is answered" if problem is None else problem
        explained = KafkaUnreachableError(text, cause_code(error))
        explained.__cause__ = error.__cause__ or error
        return explained

    def _find(self) -> str | None:
        with self._looking:
            if self._monotonic() - self._looked_at >= LOOK_AGAIN_SECONDS:
                self._problem = self._look(self._servers)
                self._looked_at = self._monotonic()
            return self._problem


def look_at(servers: Collection[Address], seconds: float = LOOK_SECONDS) -> str | None:
    """What keeps clients from Kafka; None when a server and all nodes that it names are reached."""
    looked = _all_at_once(servers, _ask, seconds)
    answered = [found for found in looked.values() if found.problem is None]
    if not answered:
        return f"{_in_words(found.problem for found in looked.values())} (KAFKA_BOOTSTRAP_SERVERS)"
    nodes = {address: node_id for found in answered for node_id, address in found.nodes.items()}
    if not nodes:
        return "Kafka answers and names no node that takes clients: its nodes are starting, or have lost their controller"
    unreached = {address: found.problem for address, found in _all_at_once(nodes, _greet, seconds).items() if found.problem}
    if not unreached:
        return None
    return _in_words(
        f"Kafka answers and tells clients to connect to node {nodes[address]} at {address}, but {problem}: set its "
        "advertised.listeners to what this machine can reach"
        for address, problem in unreached.items()
    )


def _in_words(problems: Iterable[str | None]) -> str:
    distinct = list(dict.fromkeys(str(problem) for problem in problems))
    more = len(distinct) - PROBLEMS_MAX
    return "; ".join([*distinct[:PROBLEMS_MAX], *([f"and {more} more"] if more > 0 else [])])


def _all_at_once(addresses: Iterable[Address], look: Callable[[Address, float], Found], seconds: float) -> dict[Address, Found]:
    """What was found at each; of one that is not done in time, that its name is still being looked up: all else has timeouts."""
    deadline = time.monotonic() + seconds
    chosen = list(dict.fromkeys(addresses))[:ADDRESSES_MAX]
    results: dict[Address, Found] = {}

    def work(address: Address) -> None:
        results[address] = look(address, deadline)

    threads = [Thread(target=work, args=(address,), name=f"look at {address}", daemon=True) for address in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline + 0.5 - time.monotonic()))
    unresolved = {address: Found(f"no name server tells the address of {address.host} within {seconds:g} s") for address in chosen}
    return {address: results.get(address, unresolved[address]) for address in chosen}


def _ask(address: Address, deadline: float) -> Found:
    """Connect, and ask for the nodes."""
    return _talk(address, deadline, ask_nodes)


def _greet(address: Address, deadline: float) -> Found:
    """Connect, and see that a Kafka answers."""
    return _talk(address, deadline, lambda *_: {})


def _talk(address: Address, deadline: float, ask: Callable[[socket.socket, float], dict[int, Address]]) -> Found:
    began = time.monotonic()
    try:
        connection = _connect(address, deadline)
    except (OSError, UnicodeError) as error:
        return Found(_not_connected(address, error, began))
    asked = 0
    with connection:
        try:
            ask_api_versions(connection, deadline)
            asked = 1
            return Found(None, ask(connection, deadline))
        except TimeoutError:
            says = "answer the second request" if asked else "answer"
            return Found(f"{address} takes connections and does not {says} within {_taken(began)}")
        except (NotKafkaError, OSError) as error:
            beginning = error.beginning if isinstance(error, NotKafkaError) else b""
    return Found(_closes_after_an_answer(address) if asked else _no_kafka(address, beginning, deadline))


def _connect(address: Address, deadline: float) -> socket.socket:
    """To the first of the host's addresses that takes us; what is raised is of the last."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    error: OSError = OSError("no address")
    for index, (family, kind, protocol, _, where) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max(0.01, (deadline - time.monotonic()) / (len(found) - index)))
            connection.connect(where)
        except OSError as failure:
            connection.close()
            error = failure
        else:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            return connection
    raise error


def _not_connected(address: Address, error: OSError | UnicodeError, began: float) -> str:
    match error:
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return f"no name server tells the address of {address.host} now"
        case socket.gaierror() | UnicodeError():
            return f"{address.host} has no address: no name server knows it"
        case ConnectionRefusedError():
            return f"nobody listens at {address}"
        case TimeoutError():
            return f"{address} takes no connection within {_taken(began)}: a firewall, or a machine that is down?"
    return f"{address} can't be reached ({error.strerror or type(error).__name__})"


def _closes_after_an_answer(address: Address) -> str:
    return f"{address} answered the first request and then closed the connection: does its listener want a login (SASL)?"


def _no_kafka(address: Address, beginning: bytes, deadline: float) -> str:
    """Of one that closed the connection, or said what Kafka would not say."""
    if beginning.startswith(_TLS_RECORDS) or (not beginning and _speaks_tls(address, deadline)):
        return f"{address} speaks TLS; this connection is plaintext"
    if beginning.startswith(_HTTP):
        return f"{address} speaks HTTP: it is no Kafka"
    if beginning:
        return f"{address} answers, but not as Kafka does: is it another server's port?"
    return f"{address} closes connections without an answer: is it Kafka's port, and a PLAINTEXT listener?"


def _speaks_tls(address: Address, deadline: float) -> bool:
    """Whether it answers the beginning of a TLS session: some servers end a plaintext connection without a word."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without any authority's certificate: they would be read from files
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is trusted: the first bytes are all we want
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    try:
        with _connect(address, deadline) as connection:
            connection.sendall(outgoing.read())
            return connection.recv(2) in _TLS_RECORDS
    except OSError:
        return False


def _taken(began: float) -> str:
    return f"{max(1.0, time.monotonic() - began):.0f} s"
