"""The fault suite's own servers, and the table at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.run import Outcome
from crash.servers import Servers

OUTCOMES = pytest.StashKey[list[tuple[int, Outcome]]]()
"""Seed and outcome of each fault that ran."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = []


@pytest.fixture(scope="session")
def crash_servers(servers_directory: Path) -> Iterator[Servers]:
    """Apart from those of the other tests: a proxy stands before each, and a fault may break them."""
    with Servers(servers_directory / "crash") as servers:
        yield servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What each fault did, in one table."""
    outcomes = config.stash[OUTCOMES]
    if not outcomes:
        return
    terminalreporter.section(f"faults, seed {outcomes[0][0]}")
    for _, outcome in outcomes:
        terminalreporter.line(outcome.line)
