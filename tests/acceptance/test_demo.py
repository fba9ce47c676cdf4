"""``make demo`` from outside: its command line, what it prints, what it leaves."""

import gzip
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dev_servers.cache import cache_directory
from dev_servers.made_up_logins import OTHER_KIND, made_up_logins
from dev_servers.prometheus import program

DEMO_SECONDS = 200
GONE_SECONDS = 30
SCRAPED_SECONDS = 20
CTRL_C_SECONDS = 10
PROJECT = Path(__file__).parents[2]


@contextmanager
def demo(temporary: Path, *options: str | Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **settings, "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "dev_servers.demo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def still_running(directory: Path) -> list[str]:
    """The command lines of processes that work in this directory."""
    found = []
    for each in psutil.process_iter(["cmdline", "environ"]):
        words = " ".join(each.info["cmdline"] or [])
        if str(directory) in words or str(directory) in str((each.info["environ"] or {}).get("MASKING_KEYSET_FILE")):
            found.append(words)
    return found


def rows_by_prometheus(url: str) -> float:
    """The rows that Prometheus has heard of; 0 before its first look."""
    with urllib.request.urlopen(f"{url}/api/v1/query?query=sum(stream_rows_written_total)", timeout=5) as answer:  # noqa: S310 - our own server
        return sum(float(series["value"][1]) for series in json.load(answer)["data"]["result"])


def up_to(lines: Iterable[str], wanted: str | re.Pattern[str]) -> str:
    """What is printed until a line begins so, or has it in it."""
    read = []
    for line in lines:
        read.append(line)
        if line.startswith(wanted) if isinstance(wanted, str) else wanted.search(line):
            return "".join(read)
    raise AssertionError(f"it ended before {wanted}: {''.join(read)}")


def run_in_shell(script: str) -> str:
    return subprocess.run(["bash", "-euc", script], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()


def running_demo(env_file: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dev_servers.running_demo", "--env-file", str(env_file), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def refused(temporary: Path, env_file: Path) -> str:
    with demo(temporary, "--keep", "--env-file", env_file) as process:
        _, errors = process.communicate(timeout=DEMO_SECONDS)
    return errors


def test_a_file_of_one_hundred_messages_ends_as_99_rows_and_1_dead_letter_though_all_is_killed_on_the_way(tmp_path: Path) -> None:
    messages = [json.loads(login.body()) for login in made_up_logins(99)]
    messages.insert(40, json.loads(OTHER_KIND))
    file = tmp_path / "messages.json.gz"
    file.write_bytes(gzip.compress(json.dumps(messages, indent=2).encode()))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with demo(temporary, "--input", file, "--kill") as process:
        output, errors = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 0, output + errors
    assert "99 rows and 1 dead letter of 100 messages" in output
    assert output.count("with SIGKILL; starting them again") == 2
    assert re.search(r"^missing_key +1$", output, re.MULTILINE)
    assert re.search(r"rows in Postgres 99 · dead letters 1$", output, re.MULTILINE)
    assert re.search(r"\d+ rows/s from the first message sent", output)
    assert re.search(r"\d+\.\d\d s from sent to committed for half of the rows, \d+\.\d\d s for 99 %", output)
    for message in messages:
        if "ip" in message:
            assert message["ip"] not in output
            assert message["device_id"] not in output
    assert list(temporary.iterdir()) == []
    assert still_running(temporary) == []


def test_it_stays_up_where_wished_starts_again_what_is_killed_and_ends_on_sigterm(tmp_path: Path) -> None:
    program("prometheus")
    env_file, temporary = tmp_path / "demo.env", tmp_path / "temporary"
    temporary.mkdir()
    with demo(temporary, "--logins", "300", "--keep", "--env-file", env_file) as process:
        assert process.stdout is not None
        output = up_to(process.stdout, "  boards: ")
        assert "300 rows and 1 dead letter of 301 messages" in output, output
        assert re.search(r"[1-9]\d* devices and [1-9]\d* IP addresses are shared by several users", output)
        shell = f"set -a; . {env_file}; set +a"
        assert shell in output
        assert "make demo KILL=worker-1" in output
        assert "make demo SEND=10000" in output
        (psql,) = re.findall(r"psql \S+ -c '[^']+'", output)
        assert run_in_shell(f"{shell}; {psql} -At") == "300"
        assert "missing_key" in run_in_shell(f"{shell}; faust -A stream_app dead-letters list")
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
        urls = re.findall(r"http://\S+/metrics", output)
        assert len(urls) == 4, "a bridge, two workers, a monitor"
        for url in urls:
            assert b"# HELP" in urllib.request.urlopen(url, timeout=5).read()  # noqa: S310 - the demo's own
        (prometheus,) = set(re.findall(r"(http://\S+)/graph", output))
        deadline = time.monotonic() + SCRAPED_SECONDS
        while (rows := rows_by_prometheus(prometheus)) != 300:
            assert time.monotonic() < deadline, rows
            time.sleep(0.1)

        assert "another one stays up" in refused(temporary, env_file)
        assert "there is no worker-9; there are bridge, monitor, worker-1, worker-2" in running_demo(env_file, "kill", "worker-9")
        assert "ended worker-1" in running_demo(env_file, "kill", "worker-1")
        assert "worker-1 ended, by SIGKILL; starting it again" in up_to(process.stdout, "  worker-1 is ready again")
        assert b"# HELP" in urllib.request.urlopen(urls[2], timeout=5).read(), "its page is where it was"  # noqa: S310 - as above
        assert "sent 40 logins" in running_demo(env_file, "send", "40")
        up_to(process.stdout, re.compile(r"rows in Postgres 340 · dead letters 1$"))
        process.terminate()
        assert process.wait(GONE_SECONDS) == 0
    assert list(temporary.iterdir()) == []
    assert list(tmp_path.iterdir()) == [temporary]
    assert still_running(temporary) == []
    assert "none stays up here" in running_demo(env_file, "send", "1")


def test_ctrl_c_while_it_sends_ends_everything_soon(tmp_path: Path) -> None:
    """The 3 seconds that it takes on a machine with nothing else to do, and what a busy one needs beside."""
    with demo(tmp_path, "--logins", "50000") as process:
        assert process.stdout is not None
        up_to(process.stdout, re.compile(r"rows in Postgres [1-9]"))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(GONE_SECONDS) == 128 + signal.SIGINT
        assert time.monotonic() - began < CTRL_C_SECONDS
        assert process.stdout.read().endswith("stopped everything\n")
    assert list(tmp_path.iterdir()) == []
    assert still_running(tmp_path) == []


def test_nothing_is_left_running_when_the_demo_is_killed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"  # with the jars, and without a Prometheus
    cache.mkdir()
    (cache / "jars").symlink_to(cache_directory() / "jars")
    options = ("--logins", "50", "--keep", "--env-file", tmp_path / "demo.env")
    with demo(tmp_path, *options, PATH=str(tmp_path), DEV_SERVERS_CACHE=str(cache)) as process:
        assert process.stdout is not None
        before = up_to(process.stdout, "Sending")
        assert "  prometheus: is not on the PATH; apt-get, which would fetch it, is not on this system" in before, (
            "nor anything else"
        )
        assert len(still_running(tmp_path)) > 6
        process.kill()
        process.wait()
    deadline = time.monotonic() + 45.0  # all end at once, without each other: a supervisor waits 30 s at most, then kills
    while left := still_running(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_a_process_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with demo(tmp_path, "--logins", "10", BRIDGE_RECEIVERS="none") as process:
        _, errors = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 1
    assert "bridge: ended while starting, with exit code" in errors
    assert "BRIDGE_RECEIVERS" in errors, "the end of its log"
    assert list(tmp_path.iterdir()) == []
    assert still_running(tmp_path) == []
