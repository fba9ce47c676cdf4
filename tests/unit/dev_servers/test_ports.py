import random
import subprocess
import sys

from dev_servers.ports import free_port

ANOTHER = """
import random
from dev_servers.ports import free_port

random.seed(7)
print(*(free_port() for _ in range(50)))
"""


def test_no_two_processes_are_given_one_port_while_both_live() -> None:
    random.seed(7)
    ours = {free_port() for _ in range(50)}
    answer = subprocess.run([sys.executable, "-c", ANOTHER], capture_output=True, text=True, check=True)
    others = set(map(int, answer.stdout.split()))
    assert len(ours) == len(others) == 50
    assert ours.isdisjoint(others)
