"""In a process of its own: what is under test ends processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from signal import SIGTERM

import pytest

from pipeline.ending import EXIT_CRASHED, EXIT_STOP_OUTLASTED, Ending
from pipeline.operations import Health

CHILD = """
import logging, sys, time
from threading import Thread
from pipeline.ending import Ending
from pipeline.logs import configure
from pipeline.settings import LogSettings

configure(LogSettings(log_format="json"))
crashes = []
ending = Ending(0.5, lambda: None, lambda: crashes[0] if crashes else None)
ending.start()
{then}
print("hangs", flush=True)
Thread(target=time.sleep, args=(600,)).start()
sys.exit(0)
"""
"""Its exit waits for a thread that does not end."""

STUCK = """
Thread(target=sys.stderr.write, args=("x" * 1_000_000,), daemon=True).start()
"""
"""Nobody reads its stderr, and the thread that writes there holds it."""


@pytest.fixture
def child() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    children = []

    def start(then: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        command, pipe = [sys.executable, "-c", CHILD.format(then=then)], subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True)
        children.append(process)
        return process

    yield start
    for process in children:
        with process:
            process.kill()


def test_a_stop_that_hangs_is_ended_with_a_code_and_a_line(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("ending.stopping()")
    _, log = process.communicate(timeout=20)
    assert process.returncode == EXIT_STOP_OUTLASTED
    assert '"event": "ended_at_once"' in log
    assert '"exit_code": 124' in log
    assert len(log.splitlines()) == 1


def test_a_crash_whose_end_hangs_is_ended_with_another_code_and_the_reason(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("crashes.append('a thread')")
    _, log = process.communicate(timeout=20)
    assert process.returncode == EXIT_CRASHED
    assert ['"event": "crashed"' in line for line in log.splitlines()] == [True, False]
    assert '"what": "a thread"' in log
    assert "after a crash, its stop took too long: a thread" in log


def test_an_error_that_begins_the_stop_is_the_reason_without_its_text(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("ending.stopping(LookupError('a value'))")
    _, log = process.communicate(timeout=20)
    assert process.returncode == EXIT_CRASHED
    assert "LookupError" in log
    assert "a value" not in log


def test_a_watch_that_fails_counts_as_a_crash(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("ending.also_watch(lambda: 1 / 0)")
    _, log = process.communicate(timeout=20)
    assert process.returncode == EXIT_CRASHED
    assert "ZeroDivisionError" in log


@pytest.mark.parametrize(("then", "code"), [("ending.stopping()", EXIT_STOP_OUTLASTED), ("crashes.append('x')", EXIT_CRASHED)])
def test_it_ends_although_nobody_reads_its_log(child: Callable[[str], subprocess.Popen[str]], then: str, code: int) -> None:
    process = child(STUCK + then)
    assert process.wait(20) == code


def test_who_stops_in_time_ends_with_its_own_code(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("ending.stopping(); sys.exit(7)")
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 7


def test_without_a_stop_or_a_crash_it_ends_nothing(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child("ending.also_watch(lambda: print('looked', flush=True))")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(4)] == ["hangs\n", "looked\n", "looked\n", "looked\n"]
    process.send_signal(SIGTERM)
    assert process.wait(20) == -SIGTERM


def test_livez_fails_from_a_crash_on() -> None:
    ending = Ending(1.0)
    livez = ending.livez(lambda: Health(ok=True, details={"seconds": 1}, in_words={"seconds": "one"}))
    assert livez() == Health(ok=True, details={"seconds": 1}, in_words={"seconds": "one"})
    ending.crashed = "a thread"
    assert livez() == Health(ok=False, details={"seconds": 1, "crashed": "a thread"}, in_words={"seconds": "one"})
