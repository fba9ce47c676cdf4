"""Free TCP ports on this machine."""

import fcntl
import os
import random
import socket
import threading
from functools import cache

from dev_servers.cache import cache_directory

HOST = "127.0.0.1"
FIRST_PORT = 20_000
LAST_PORT = 32_000
"""Below the range that kernels hand out by themselves: a server that is stopped for a while finds its port still free. From that
range, a client that keeps trying to reach the stopped server would sooner or later be given that very port and connect to itself.
"""
TRIES_MAX = 1_000

_handed_out: set[int] = set()
_choosing = threading.Lock()


def free_port() -> int:
    """A port that nothing listens on, and that was not handed out before to a process that lives and has the same cache directory.

    So tests, demos and benchmarks beside each other do not meet, be it while a server that has its port starts, or is stopped.
    """
    with _choosing:
        for _ in range(TRIES_MAX):
            port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311 - no secret; one that was just given up is not the next
            if port in _handed_out or not _can_be_bound(port) or not _is_reserved(port):
                continue
            _handed_out.add(port)
            return port
    raise OSError(f"no free port from {FIRST_PORT} to {LAST_PORT} on {HOST}")


def _can_be_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _is_reserved(port: int) -> bool:
    """Whether the port is now ours until this process ends: a lock on one byte of a file, for other processes to see."""
    reservations = _reservations()
    try:
        fcntl.lockf(reservations, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX leaves the choice
        return False
    return True


@cache
def _reservations() -> int:
    """Opened once and never closed: all locks of a process end when it closes any descriptor of the file."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    return os.open(cache_directory() / "ports.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def accepts_connections(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
