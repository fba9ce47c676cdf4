"""A worker that has stopped in order is gone, whatever its threads still wait for; one that crashed goes on to its own end."""

import subprocess
import sys

import pytest

STOPPED = """
import time
from concurrent.futures import ThreadPoolExecutor
from mode import Worker
from stream_app.commands.worker import StreamWorker

Worker.stop_and_shutdown = lambda self: None  # all is written and closed
worker = StreamWorker.__new__(StreamWorker)
worker._crash_reason = {crash}
ThreadPoolExecutor().submit(time.sleep, {seconds})  # as it asks a Kafka that is away; Python waits for it at its exit
worker.stop_and_shutdown()
print("goes on")
"""


@pytest.mark.parametrize(("crash", "seconds", "printed"), [("None", 60, ""), ("OSError()", 0, "goes on\n")])
def test_a_thread_that_waits_does_not_hold_the_end(crash: str, seconds: int, printed: str) -> None:
    code = STOPPED.format(crash=crash, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
