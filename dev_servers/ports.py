"""Free TCP ports on this machine."""

import random
import socket

HOST = "127.0.0.1"
FIRST_PORT = 20_000
LAST_PORT = 32_000
"""Below the range that kernels hand out by themselves: a server that is stopped for a while finds its port still free. From that
range, a client that keeps trying to reach the stopped server would sooner or later be given that very port and connect to itself.
"""
TRIES_MAX = 1_000

_handed_out: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on and that was not handed out before by this process.

    Chosen at random, so that test runs beside each other hardly meet.
    """
    for _ in range(TRIES_MAX):
        port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311 - no secret
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise OSError(f"no free port from {FIRST_PORT} to {LAST_PORT} on {HOST}")


def accepts_connections(port: int) -> bool:
    """Whether something listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
