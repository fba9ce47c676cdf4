"""In a JSON log every line is JSON, also what a process says that doesn't come as far as to log: real command lines, no server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev_servers.ports import free_port
from pipeline.ending import EXIT_REFUSED

ROOT = Path(__file__).parents[2]
SECONDS = 60
BRIDGE = ("-m", "bridges")
FAUST = ("-m", "faust", "-A", "stream_app")
PROGRAM = ("-c", "from stream_app.command_line import main; main()")

# An import that fails before anything is composed, as in a broken image; what it says is no name of ours.
BROKEN = "import sys; sys.modules['aiopg'] = None; from stream_app import app"
UNRAISABLE = """
from pipeline import json_errors
json_errors.begin()
class Quoting:
    def __del__(self):
        raise ValueError("203.0.113.7")
Quoting()
"""


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code and standard error of a process whose log is JSON, unless ``environment`` says otherwise."""
    ours = {"LOG_FORMAT": "json", "POSTGRES_DSN": f"postgresql://u@127.0.0.1:{free_port()}/d"}
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **ours, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return ended.returncode, ended.stderr


def only_line(stderr: str) -> dict[str, Any]:
    (line,) = stderr.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert {"event", "level", "logger", "timestamp"} <= found.keys()
    return found


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "says"),
    [
        ((*BRIDGE, "sqs"), {"SQS_QUEUE_URL": "http://h/q", "LOG_FORMAT": "jsno"}, EXIT_REFUSED, "LOG_FORMAT: expected one of"),
        ((*BRIDGE, "sqs"), {"LOG_LEVEL": "loud"}, EXIT_REFUSED, "SQS_QUEUE_URL: not set"),
        ((*BRIDGE, "sqs", "--nonsense"), {}, 2, "No such option: --nonsense"),
        ((*FAUST, "worker"), {"LOG_FORMAT": "jsno"}, EXIT_REFUSED, "LOG_FORMAT: expected one of text, json"),
        ((*FAUST, "worker"), {"MASKING_KEYSET_FILE": "/nowhere"}, EXIT_REFUSED, "MASKING_KEYSET_FILE: "),
        ((*FAUST, "worker", "--nonsense"), {}, 2, "No such option: --nonsense"),
        ((*PROGRAM, "--nonsense"), {}, 2, "No such option: --nonsense"),
        ((*FAUST, "monitor"), {"MONITOR_WEB_PORT": "x"}, EXIT_REFUSED, "MONITOR_WEB_PORT: expected a whole number"),
        ((*FAUST, "migrate"), {"WEB_PORT": "x"}, 1, "nobody listens at host and port of POSTGRES_DSN"),
    ],
)
def test_an_error_is_one_line(arguments: tuple[str, ...], environment: dict[str, str], exit_code: int, says: str) -> None:
    """`migrate` looks at no port, and fails for want of a server."""
    code, stderr = run(*arguments, **environment)
    found = only_line(stderr)
    assert code == found["exit_code"] == exit_code
    assert says in found["problem"]
    assert found["event"] == ("start_refused" if exit_code == EXIT_REFUSED else "command_failed")
    assert found["level"] == ("critical" if exit_code == EXIT_REFUSED else "error")
    setting = says.partition(":")[0]
    assert (setting in found.get("settings", ())) is setting.isupper()


@pytest.mark.parametrize(("code", "error"), [(BROKEN, "ModuleNotFoundError"), (UNRAISABLE, "ValueError")])
def test_a_traceback_of_last_resort_is_one_line_without_what_it_says(code: str, error: str) -> None:
    _, stderr = run("-c", code)
    found = only_line(stderr)
    assert (found["event"], found["level"]) == ("uncaught_error", "critical")
    assert found["error"].startswith(error)
    assert "203.0.113.7" not in stderr


def test_a_log_for_people_has_them_as_click_writes_them() -> None:
    code, stderr = run(*FAUST, "worker", LOG_FORMAT="text", WEB_PORT="x")
    assert (code, stderr) == (EXIT_REFUSED, "Error: WEB_PORT: expected a whole number, from 1 to 65535\n")
