"""Bridge and monitor end within their bounds, with a code and a line, whatever in them hangs or dies. It takes no server."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGTERM
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from integration.running_bridge import wait_for

from dev_servers.elasticmq import MADE_UP_CREDENTIALS
from dev_servers.ports import HOST, free_port
from dev_servers.process import ChildProcess, Launch
from pipeline.ending import EXIT_CRASHED, EXIT_STOP_OUTLASTED

BRIDGE = """
import sys, time
from bridges import __main__ as command
from bridges.bridge import Bridge
command.STOP_SECONDS = 1.0
{breaks}
sys.argv = ["bridges", "sqs"]
command.main()
"""

MONITOR = """
import sys, time
from faust.cli.faust import cli
from stream_app.commands import monitor as command
from stream_app.monitor.monitor import Monitor
own = sys.modules["stream_app.commands.monitor"]
own.STOP_SECONDS, own.LAST_LOOK_SECONDS = 1.0, 0.3
{breaks}
sys.argv = ["faust", "-A", "stream_app", "monitor"]
cli()
"""

NOWHERE = "127.0.0.1:1"
END_SECONDS = 30.0


class Process(ChildProcess):
    """One that is broken before it starts."""

    def __init__(self, directory: Path, runner: str) -> None:
        script = directory / "broken.py"
        script.write_text(runner)
        self.port = free_port()
        environment = {
            "BRIDGE_WEB_PORT": str(self.port),
            "MONITOR_WEB_PORT": str(self.port),
            "BRIDGE_RECEIVE_WAIT_SECONDS": "1",
            "BRIDGE_SHUTDOWN_SECONDS": "3.5",
            "SQS_QUEUE_URL": f"http://{NOWHERE}/1/queue",
            **MADE_UP_CREDENTIALS,
            "KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
            "POSTGRES_DSN": f"postgresql://monitor@{NOWHERE}/none",
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        launch = Launch([sys.executable, str(script)], environment=environment, directory=directory, stop_seconds=END_SECONDS)
        super().__init__("broken", launch, directory / "broken.log")

    def livez(self) -> tuple[int, str]:
        """Status and what it says has crashed; 0 while nobody listens."""
        try:
            with urlopen(f"http://{HOST}:{self.port}/livez", timeout=5) as answer:
                return answer.status, ""
        except HTTPError as error:
            with error:
                return error.code, str(json.load(error).get("crashed"))
        except OSError:
            return 0, ""

    def events(self) -> dict[str, dict[str, object]]:
        """The last line of each event. Fails when a line is none."""
        return {str(line["event"]): line for line in map(json.loads, self.log_file.read_text().splitlines())}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, str], Process]]:
    started = []

    def start(runner: str, breaks: str) -> Process:
        started.append(Process(tmp_path, runner.format(breaks=breaks)))
        return started[-1]

    yield start
    for process in started:
        process.kill()


HANGING_FINISH = "Bridge._finish = lambda self: time.sleep(600)\n"
DYING_THREAD = "def die(*_):\n    raise LookupError('a' + ' value')\nBridge._start = die\n"
QUICK_LOOK = "Monitor.look = lambda self: None\n"
HANGING_LOOK = "Monitor.look = lambda self: time.sleep(600)\n"
FAILING_LOOK = "def fail(*_):\n    raise LookupError('a' + ' value')\nMonitor.look = fail\n"
HANGING_CLOSE = "from stream_app.monitor.database import Database\nDatabase.close = lambda self: time.sleep(600)\n"


@pytest.mark.parametrize(("runner", "breaks"), [(BRIDGE, HANGING_FINISH), (MONITOR, QUICK_LOOK + HANGING_CLOSE)])
def test_one_whose_stop_hangs_is_ended(start: Callable[[str, str], Process], runner: str, breaks: str) -> None:
    process = start(runner, breaks)
    wait_for(lambda: process.livez()[0] == 200, "it serves")
    os.kill(process.pid, SIGTERM)
    assert process.wait(END_SECONDS) == EXIT_STOP_OUTLASTED
    assert process.events()["ended_at_once"]["why"] == "its stop took too long"


def test_a_monitor_whose_look_hangs_stops_soon_and_in_order(start: Callable[[str, str], Process]) -> None:
    """As one does that waits for a silent server: a look takes that server's timeouts, and can't be interrupted."""
    process = start(MONITOR, HANGING_LOOK)
    wait_for(lambda: process.livez()[0] == 200, "it serves")
    os.kill(process.pid, SIGTERM)
    assert process.wait(END_SECONDS) == 0
    assert process.events()["monitor_stopped"]["look"] == "abandoned"
    assert "ended_at_once" not in process.events()


def test_a_bridge_one_of_whose_threads_dies_ends(start: Callable[[str, str], Process]) -> None:
    process = start(BRIDGE, DYING_THREAD)
    assert process.wait(END_SECONDS) == 1
    text = process.log_file.read_text()
    assert "LookupError" in text
    assert "a value" not in text


def test_a_bridge_that_has_crashed_and_cannot_end_says_so_at_livez_and_is_ended(start: Callable[[str, str], Process]) -> None:
    process = start(BRIDGE, DYING_THREAD + HANGING_FINISH)
    wait_for(lambda: process.livez() == (503, "dead threads: start"), "/livez fails")
    assert process.wait(END_SECONDS) == EXIT_CRASHED
    assert process.events()["ended_at_once"]["why"] == "after a crash, its stop took too long: dead threads: start"


def test_a_monitor_whose_loop_dies_ends(start: Callable[[str, str], Process]) -> None:
    process = start(MONITOR, FAILING_LOOK)
    assert process.wait(END_SECONDS) == 1
    assert process.events()["monitor_crashed"]["error"] == "LookupError"
    assert "a value" not in process.log_file.read_text()


def test_a_monitor_whose_loop_dies_and_whose_end_hangs_is_ended(start: Callable[[str, str], Process]) -> None:
    process = start(MONITOR, FAILING_LOOK + HANGING_CLOSE)
    assert process.wait(END_SECONDS) == EXIT_CRASHED


@pytest.mark.parametrize("runner", [BRIDGE, MONITOR])
def test_one_whose_pages_are_served_no_more_ends(start: Callable[[str, str], Process], runner: str) -> None:
    """Nobody would hear of anything any more."""
    dies = "from pipeline.http_server import HttpServer\nHttpServer._look_at_the_clock = lambda self: 1 / 0\n"
    process = start(runner, dies)
    assert process.wait(END_SECONDS) == EXIT_CRASHED
    assert process.events()["crashed"]["what"] == "the thread that serves /livez has ended"
    assert process.events()["uncaught_error"]["thread"] == "operations"
