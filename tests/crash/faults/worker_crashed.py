"""A worker crashes in a part of its own, or others take what it needs: it ends by itself, or goes on; nothing is lost."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from resource import RLIMIT_NOFILE, prlimit
from signal import SIGVTALRM

from crash.faults import fault
from crash.system import Setup, System
from dev_servers.ports import HOST

ENDS_SECONDS = 40.0
"""More than FLUSH_SECONDS and STOP_SECONDS together, on a busy machine."""

DESCRIPTORS = 256
SLOW_CLIENTS = 250

_SITE = """
import signal

def crash(*_):
    from stream_app.application import app
    {crash}

signal.signal(signal.SIGVTALRM, crash)
"""
"""Python runs this before the worker's own code; the handler runs in the event loop's thread."""

_THREAD_ENDS = "app._consumer._thread.thread_loop.call_soon_threadsafe(exit, 1)"
_AGENT_RAISES = "app.partitions.receive = None"


def _crashed(system: System, crash: str) -> tuple[str, int]:
    """Which worker was broken, and the code that it ended with by itself; it runs again."""
    name = system.worker
    directory = system.directory / "site"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITE.format(crash=crash))
    assert system.processes.stop(name) == {name: 0}
    system.start_worker(name, PYTHONPATH=str(directory))
    system.processes.wait_ready(name)
    system.wait_flowing()
    system.prove(f"{name} holds records", lambda: system.buffered(name))
    system.moment()
    child = system.processes.running.pop(name)
    os.kill(child.pid, SIGVTALRM)
    code = child.wait(ENDS_SECONDS)
    system.start_worker(name)
    system.mended()
    system.processes.wait_ready(name)
    return name, code


@fault(
    "worker-consumer-thread-dies",
    "A worker whose consumer's thread has died ends by itself with a code; started again it goes on, nothing is lost.",
    recovery_seconds=20,
    setup=Setup(messages_per_second=100, settings={"WINDOW_SECONDS": "1"}),
)
def consumer_thread_dies(system: System) -> Iterator[str]:
    """Without an error that anybody could catch: what waits for the thread would wait for ever."""
    name, code = _crashed(system, _THREAD_ENDS)
    assert code != 0
    yield f"{name} ended by itself with {code}"


@fault(
    "worker-agent-raises",
    "A worker whose agent has raised ends by itself with a code; started again it goes on, nothing is lost.",
    recovery_seconds=20,
    setup=Setup(messages_per_second=100, settings={"WINDOW_SECONDS": "1"}),
)
def agent_raises(system: System) -> Iterator[str]:
    """At the next fetch, with records in hand."""
    name, code = _crashed(system, _AGENT_RAISES)
    assert code != 0
    yield f"{name} ended by itself with {code}"


@fault(
    "metrics-clients-without-end",
    "250 clients that hold half a request each take no worker's file descriptors and no scrape's turn; nothing is delayed.",
    recovery_seconds=10,
)
def clients_without_end(system: System) -> Iterator[str]:
    """As many as a process may open files, a byte each now and then. Postgres ends its sessions: new ones are needed."""
    limited = {name: prlimit(system.pid(name), RLIMIT_NOFILE) for name in system.processes.running}
    for name, usual in limited.items():
        prlimit(system.pid(name), RLIMIT_NOFILE, (DESCRIPTORS, usual[1]))
    system.moment()
    with ExitStack() as held:
        clients: dict[str, list[socket.socket]] = {name: [] for name in limited}
        for name in limited:
            for _ in range(SLOW_CLIENTS):
                client = held.enter_context(closing(socket.create_connection((HOST, system.processes.ports[name]), 5)))
                client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                clients[name].append(client)
        system.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        system.prove("the first of them are sent away", lambda: all(_is_closed(of_each[0]) for of_each in clients.values()))
        for _ in range(3):
            for client in (one for of_each in clients.values() for one in of_each):
                with suppress(OSError):  # it was closed: another has its place
                    client.sendall(b"x")
            system.wait_flowing(200)
            assert all(system.processes.scrape(name) for name in limited)
            assert all(system.processes.livez(name)[0] == 200 for name in limited)
    yield f"{SLOW_CLIENTS} clients hung at each of {len(limited)} processes while 600 messages came through"
    assert not [name for name in limited if "Too many open files" in system.log(name)]


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)  # noqa: FBT003 - the library's own signature
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
