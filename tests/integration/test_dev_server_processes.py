"""A child process of ours: what its log shows when it fails, and that it never outlives us."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dev_servers import pipeline_processes
from dev_servers import process as process_module
from dev_servers.elasticmq import MADE_UP_CREDENTIALS
from dev_servers.pipeline_processes import PipelineProcesses
from dev_servers.ports import HOST, free_port
from dev_servers.process import ChildProcess, DevServerError, Launch

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)"
WITH_ORPHAN = """
import os, sys, time
if os.fork() == 0:
    os.setsid()  # out of the process group, as Postgres's processes are
    print("orphan", os.getpid(), flush=True)
    time.sleep(600)
time.sleep(0.3)
"""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def python(code: str, stop_seconds: float = 10.0) -> Launch:
    return Launch([sys.executable, "-c", code], stop_seconds=stop_seconds)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def test_a_child_that_ignores_its_stop_signal_is_killed_after_its_seconds(log_file: Path) -> None:
    child = ChildProcess("stubborn", python(STUBBORN, stop_seconds=0.2), log_file)
    child.wait_until(lambda: "here" in log_file.read_text(), 10)
    assert child.stop() == -signal.SIGKILL
    assert gone(child.pid)


def test_a_stopped_child_can_be_ended(log_file: Path) -> None:
    child = ChildProcess("frozen", python("import time; time.sleep(600)"), log_file)
    child.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "it is stopped")
    assert child.stop() == -signal.SIGTERM


def test_the_return_code_is_the_childs_own(log_file: Path) -> None:
    assert ChildProcess("three", python("raise SystemExit(3)"), log_file).wait(10) == 3


def test_descendants_that_left_the_process_group_are_ended(log_file: Path) -> None:
    child = ChildProcess("parent", python(WITH_ORPHAN), log_file)
    eventually(lambda: "orphan" in log_file.read_text(), "the orphan was born")
    orphan = int(log_file.read_text().split()[1])
    assert child.wait(10) == 0
    assert gone(orphan)


def test_a_child_ends_when_its_supervisor_is_killed(log_file: Path) -> None:
    child = ChildProcess("child", python("import time; time.sleep(600)"), log_file)
    supervisor = psutil.Process(child.pid).parent()
    assert supervisor is not None
    supervisor.kill()
    eventually(lambda: gone(child.pid), "the child is gone")
    assert child.wait(10) == -signal.SIGKILL


def test_a_child_ends_when_the_process_that_started_it_is_killed(log_file: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from dev_servers.process import ChildProcess, Launch
child = ChildProcess("child", Launch([sys.executable, "-c", {STUBBORN!r}], stop_seconds=0.2), Path({str(log_file)!r}))
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert not gone(pid)
        starter.kill()
        eventually(lambda: gone(pid), "the child is gone")


def test_an_end_before_it_was_ready_shows_the_log_of_this_start_only(log_file: Path) -> None:
    log_file.write_text("from an earlier start\n")
    child = ChildProcess("fails", python("print('the reason'); raise SystemExit(4)"), log_file)
    with pytest.raises(DevServerError) as error:
        child.wait_until(lambda: False, 10)
    assert str(error.value) == f"fails: ended while starting, with exit code 4\nthe end of {log_file}:\n  the reason"


def test_a_child_that_is_never_ready_is_ended_and_named(log_file: Path) -> None:
    child = ChildProcess("late", python("import time; time.sleep(600)"), log_file)
    with pytest.raises(DevServerError, match=r"late: was not ready within 0\.2 s, it sleeps"):
        child.wait_until(lambda: False, 0.2, lambda: ", it sleeps")
    assert gone(child.pid)


def test_a_bridge_that_is_not_ready_is_named_with_what_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://{HOST}:{free_port()}"
    environment = {**MADE_UP_CREDENTIALS, "AWS_ENDPOINT_URL_SQS": nobody, "SQS_QUEUE_URL": f"{nobody}/000000000000/logins"}
    processes = PipelineProcesses(tmp_path, environment)
    monkeypatch.setattr(pipeline_processes, "READY_SECONDS", 0.2)
    child = processes.start_bridge()
    try:
        child.wait_until(lambda: '"started": false' in processes._readiness("bridge"), 30)
        with pytest.raises(
            DevServerError, match=r'bridge: was not ready within 0\.2 s; /readyz says {"ok": false, "started": false'
        ):
            processes.wait_ready()
    finally:
        child.kill()
    assert f"no answer from port {processes.ports['bridge']}" in processes._readiness("bridge")


def test_a_program_that_is_not_there_is_named(log_file: Path) -> None:
    with pytest.raises(DevServerError, match=r"absent: could not be started: .*no-such-program"):
        ChildProcess("absent", Launch(["no-such-program"]), log_file)


def test_one_log_has_one_child(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "PREVIOUS_SECONDS", 0.1)
    child = ChildProcess("first", python("import time; time.sleep(600)"), log_file)
    with pytest.raises(DevServerError, match="second: another one is running in"):
        ChildProcess("second", python("pass"), log_file)
    child.kill()
    assert ChildProcess("third", python("pass"), log_file).wait(10) == 0


def test_a_long_log_is_cut_to_its_end(log_file: Path) -> None:
    child = ChildProcess("talker", python("[print('line', n) for n in range(5000)]; raise SystemExit(1)"), log_file)
    child.wait(10)
    with pytest.raises(DevServerError) as error:
        child.check()
    lines = str(error.value).splitlines()[2:]
    assert lines == [f"  line {number}" for number in range(4980, 5000)]


def test_the_environment_is_ours_and_the_launchs(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    launch = Launch([sys.executable, "-c", "import os; print(os.environ['OURS'], os.environ['ITS'])"], environment={"ITS": "2"})
    assert ChildProcess("child", launch, log_file).wait(10) == 0
    assert log_file.read_text() == f"1 2{os.linesep}"
