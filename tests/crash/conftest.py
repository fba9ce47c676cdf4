"""The fault suite's own servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.servers import Servers


@pytest.fixture(scope="session")
def crash_servers(servers_directory: Path) -> Iterator[Servers]:
    """Apart from those of the other tests: a proxy stands before each, and a fault may break them."""
    with Servers(servers_directory / "crash") as servers:
        yield servers
