"""The indented blocks of a page, and a shell that runs them as they stand."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

STOP_ALL = """
kill $(jobs -p)
for process in $(jobs -p); do wait "$process" || echo "a process ended with $?"; done
"""


def blocks(page: str) -> list[str]:
    """Each indented block, without its indent."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.strip("\n").splitlines()) for block in found]


def in_bash(script: str, directory: Path, environment: Mapping[str, str], seconds: float) -> str:
    """What it printed, but for errors. It must end with 0; nothing of it is left when it takes longer."""
    bash = subprocess.Popen(
        ["bash", "-eu", "-c", script], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = bash.communicate(timeout=seconds)
    finally:
        if bash.poll() is None:
            os.killpg(bash.pid, signal.SIGKILL)
            bash.communicate()
    assert bash.returncode == 0, output + errors
    return output
