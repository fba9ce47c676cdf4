"""In a process of its own: what is under test ends processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from signal import SIGINT, SIGTERM, Signals

import pytest
from signal_masks import threads_that_take

CHILD = """
import sys, time
from threading import Thread
from pipeline.stop_signals import call_on_stop_signal

call_on_stop_signal(lambda: print("stop", flush=True))
Thread(target=sys.stderr.write, args=("x" * 1_000_000,), daemon=True).start()
print("ready", flush=True)
time.sleep(600)
"""
"""Beside its main thread one that is stuck: nobody reads its stderr."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command, pipe = [sys.executable, "-c", CHILD], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True) as process:
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
    deadline = time.monotonic() + 10
    while threads_that_take(child.pid, number) != 1:  # none, until it has come to its sigwait
        assert time.monotonic() < deadline
        time.sleep(0.01)
