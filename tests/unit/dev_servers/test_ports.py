import random
import subprocess
import sys
from pathlib import Path

import pytest

from dev_servers import ports
from dev_servers.ports import free_port

ANOTHER = """
import random
from dev_servers.ports import free_port

random.seed(7)
print(*(free_port() for _ in range(50)))
"""


def test_no_two_processes_are_given_one_port_while_both_live() -> None:
    """Both choose in the same order; later tests by chance again."""
    state = random.getstate()
    random.seed(7)
    ours = {free_port() for _ in range(50)}
    random.setstate(state)
    answer = subprocess.run([sys.executable, "-c", ANOTHER], capture_output=True, text=True, check=True)
    others = set(map(int, answer.stdout.split()))
    assert len(ours) == len(others) == 50
    assert ours.isdisjoint(others)


def test_a_file_of_reservations_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ports.lock").mkdir()
    monkeypatch.setattr(ports, "cache_directory", lambda: tmp_path)
    monkeypatch.setattr(ports, "_reservations", ports._reservations.__wrapped__)  # not the one that this process has open
    with pytest.raises(OSError, match=r"ports\.lock"):
        free_port()
