"""A worker that has crashed, or can't stop, ends within its bound with a code and a line that says why, on real servers."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGALRM, SIGTERM, Signals
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from acceptance.running_pipeline import RunningPipeline, wait_until
from signal_masks import is_pending, threads_that_take

from dev_servers.ports import HOST, free_port
from dev_servers.process import ChildProcess
from pipeline.ending import EXIT_CRASHED, EXIT_STOP_OUTLASTED

RUNNER = """
import signal, sys, time

from stream_app import application
from stream_app.transport import batch_transport

application.STOP_SECONDS = {stop_seconds}
app = application.app

def consumer_thread():
    return app._consumer._thread

def end_thread(error):
    loop = consumer_thread().thread_loop
    def end():
        raise error
    loop.call_soon_threadsafe(end)

def break_it(*_):
{breaks}

signal.signal(signal.SIGALRM, break_it)
{before}
sys.argv = ["faust", "-A", "stream_app", "worker"]
from faust.cli.faust import cli
cli()
"""
"""Handlers run on the main thread, where the event loop is."""

STOP_SECONDS = 3.0
FLUSH_SECONDS = 1.0
RUNNING_SECONDS = 20.0
"""Far above the two together; the machine may be busy."""

Start = Callable[..., ChildProcess]


@pytest.fixture
def start(pipeline: RunningPipeline, tmp_path: Path) -> Start:
    """Starts a worker that SIGALRM breaks as told."""

    def start(breaks: str, before: str = "", stop_seconds: float = STOP_SECONDS) -> ChildProcess:
        lines = "".join(f"    {line}\n" for line in breaks.splitlines())
        runner = tmp_path / "breakable_worker.py"
        runner.write_text(RUNNER.format(breaks=lines, before=before, stop_seconds=stop_seconds))
        pipeline.ports["worker"] = free_port()
        return pipeline._start(
            "worker",
            [sys.executable, str(runner)],
            {
                "WEB_BIND": HOST,
                "WEB_PORT": str(pipeline.ports["worker"]),
                "FLUSH_SECONDS": str(FLUSH_SECONDS),
                "LOG_FORMAT": "json",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
        )

    return start


def livez(port: int) -> tuple[int, str]:
    """Status and what it says has crashed; 0 while nobody listens."""
    try:
        with urlopen(f"http://{HOST}:{port}/livez", timeout=5) as answer:
            return answer.status, ""
    except HTTPError as error:
        with error:
            return error.code, str(json.load(error).get("crashed"))
    except OSError:
        return 0, ""


def events(pipeline: RunningPipeline) -> dict[str, dict[str, object]]:
    """The last line of each event. Fails when a line is none: everything that a worker prints is one."""
    return {str(line["event"]): line for line in map(json.loads, pipeline.log("worker").splitlines())}


def ended(pipeline: RunningPipeline, worker: ChildProcess) -> int:
    code = worker.wait(RUNNING_SECONDS)
    del pipeline.running["worker"]
    assert code is not None
    return code


BLOCK = "time.sleep(600)"
HANG_AT_STOP = "async def hang(self): time.sleep(600)\nbatch_transport.BatchConsumer.on_stop = hang\n"


@pytest.mark.parametrize(
    ("breaks", "what"),
    [
        ("end_thread(SystemExit(1))", "the consumer's thread has ended"),
        ("consumer_thread().thread_loop.call_soon_threadsafe(consumer_thread().thread_loop.stop)", "RuntimeError"),
    ],
)
def test_a_worker_whose_consumer_thread_dies_ends(pipeline: RunningPipeline, start: Start, breaks: str, what: str) -> None:
    worker = start(breaks)
    pipeline.wait_ready("worker")
    worker.send_signal(SIGALRM)
    assert ended(pipeline, worker) in {1, EXIT_CRASHED}
    assert what in pipeline.log("worker")
    events(pipeline)


def test_a_worker_whose_agent_raises_ends_and_the_next_one_goes_on(pipeline: RunningPipeline, start: Start) -> None:
    worker = start("def fail(*_): raise LookupError('a' + ' value')\napp.partitions.receive = fail")
    pipeline.wait_ready("worker")
    worker.send_signal(SIGALRM)
    pipeline.produce([(b"k", b"nonsense", {})])
    assert ended(pipeline, worker) in {1, EXIT_CRASHED}
    assert "LookupError" in pipeline.log("worker")
    assert "a value" not in pipeline.log("worker")
    events(pipeline)
    pipeline.start_worker()
    pipeline.wait_drained()
    assert pipeline.count("dead_letters") == 1


def test_a_worker_that_has_crashed_and_cannot_end_says_so_at_livez_and_is_ended(pipeline: RunningPipeline, start: Start) -> None:
    """What was seen with Faust's codecs and no file descriptors: an error in the agent, and an end that waits for ever."""
    hang = "async def never(*_):\n    await app.loop.create_future()\napp.on_stop = never\n"
    fail = "def fail(*_): raise LookupError\napp.partitions.receive = fail"
    worker = start(hang + fail, stop_seconds=8)
    pipeline.wait_ready("worker")
    worker.send_signal(SIGALRM)
    pipeline.produce([(b"k", b"nonsense", {})])
    wait_until(lambda: livez(pipeline.ports["worker"]) == (503, "LookupError"), "/livez fails", 8)
    worker.send_signal(SIGTERM)  # which does not lengthen its life
    assert ended(pipeline, worker) == EXIT_CRASHED
    assert events(pipeline)["ended_at_once"]["why"] == "after a crash, its stop took too long: LookupError"


def test_a_worker_whose_event_loop_is_blocked_ends_on_sigterm(pipeline: RunningPipeline, start: Start) -> None:
    worker = start(BLOCK)
    pipeline.wait_ready("worker")
    worker.send_signal(SIGALRM)
    wait_until(lambda: pipeline.metric("worker", "process_open_fds"), "its other threads live")
    worker.send_signal(SIGTERM)
    assert ended(pipeline, worker) == EXIT_STOP_OUTLASTED
    assert events(pipeline)["ended_at_once"]["why"] == "its stop took too long"


def test_one_thread_of_a_worker_takes_signals_and_it_stops_in_order(pipeline: RunningPipeline) -> None:
    worker = pipeline.start_worker()
    pipeline.wait_ready("worker")
    wait_until(lambda: threads_that_take(worker.pid, SIGTERM) == 1, "one thread takes it")
    assert pipeline.stop_worker() == 0


def test_a_worker_whose_stop_blocks_ends(pipeline: RunningPipeline, start: Start) -> None:
    worker = start("pass", before=HANG_AT_STOP)
    pipeline.wait_ready("worker")
    worker.send_signal(SIGTERM)
    assert ended(pipeline, worker) == EXIT_STOP_OUTLASTED


@pytest.mark.parametrize("breaks", ["pass", BLOCK])
def test_a_second_signal_ends_a_worker_at_once(pipeline: RunningPipeline, start: Start, breaks: str) -> None:
    worker = start(breaks, before=HANG_AT_STOP, stop_seconds=600)
    pipeline.wait_ready("worker")
    os.kill(worker.pid, SIGALRM)
    os.kill(worker.pid, SIGTERM)
    wait_until(lambda: not is_pending(worker.pid, SIGTERM), "it has taken the first")
    os.kill(worker.pid, SIGTERM)
    assert ended(pipeline, worker) == 128 + Signals.SIGTERM


def test_a_worker_whose_start_fails_and_whose_stop_hangs_ends(pipeline: RunningPipeline, start: Start) -> None:
    fail = "async def fail(): raise LookupError('a' + ' value')\napp._wait_until_it_can_write = fail\n"
    worker = start("pass", before=fail + "async def never(*_):\n    time.sleep(600)\napp.on_stop = never\n")
    assert ended(pipeline, worker) == EXIT_CRASHED
    assert events(pipeline)["ended_at_once"]["why"] == "after a crash, its stop took too long: LookupError"
    assert "a value" not in pipeline.log("worker")


def test_a_worker_whose_start_fails_ends(pipeline: RunningPipeline, start: Start) -> None:
    worker = start("pass", before="async def fail(): raise LookupError('a' + ' value')\napp._wait_until_it_can_write = fail\n")
    assert ended(pipeline, worker) == 1
    assert "a value" not in pipeline.log("worker")
    events(pipeline)
