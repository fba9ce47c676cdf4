"""In a process of its own: what is under test ends processes."""

import subprocess
import sys
from collections.abc import Iterator
from signal import SIGINT, SIGTERM, Signals

import pytest
from signal_masks import threads_that_take

CHILD = """
import time
from threading import Thread
from pipeline.stop_signals import call_on_stop_signal

call_on_stop_signal(lambda: print("stop", flush=True))
Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert said(process) == "ready"
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_the_first_stops_and_the_second_ends_the_process(child: subprocess.Popen[str], number: Signals) -> None:
    child.send_signal(number)
    assert said(child) == "stop"
    assert child.poll() is None
    child.send_signal(number)
    assert child.wait(10) == 128 + number


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_one_thread_takes_it_whatever_other_threads_do(child: subprocess.Popen[str], number: Signals) -> None:
    assert threads_that_take(child.pid, number) == 1
