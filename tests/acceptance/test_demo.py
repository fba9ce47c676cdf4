"""``make demo`` from outside: its command line, what it prints, what it leaves."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import psutil
import psycopg2

from dev_servers.made_up_logins import OTHER_KIND, made_up_logins
from dev_servers.prometheus import program

DEMO_SECONDS = 200
GONE_SECONDS = 30
SCRAPED_SECONDS = 20


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


def test_it_stays_up_where_wished_with_addresses_that_answer_and_ends_on_sigterm(tmp_path: Path) -> None:
    program("prometheus")
    with demo(tmp_path, "--logins", "300", "--keep") as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("  prometheus: "):
                break
        output = "".join(lines)
        assert "300 rows and 1 dead letter of 301 messages" in output, output
        assert re.search(r"[1-9]\d* devices and [1-9]\d* IP addresses are shared by several users", output)
        addresses = dict(re.findall(r"^  ([A-Z_]+)=(\S+)$", output, re.MULTILINE))
        with closing(psycopg2.connect(addresses["POSTGRES_DSN"])) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), count(DISTINCT message_id) FROM user_logins")
            assert cursor.fetchone() == (300, 300)
        urls = re.findall(r"http://\S+/metrics", output)
        assert len(urls) == 4, "a bridge, two workers, a monitor"
        for url in urls:
            assert b"# HELP" in urllib.request.urlopen(url, timeout=5).read()  # noqa: S310 - the demo's own
        deadline = time.monotonic() + SCRAPED_SECONDS
        while (rows := rows_by_prometheus(lines[-1].split()[1])) != 300:
            assert time.monotonic() < deadline, rows
            time.sleep(0.1)
        process.terminate()
        assert process.wait(GONE_SECONDS) == 0
    assert list(tmp_path.iterdir()) == []
    assert still_running(tmp_path) == []


def test_nothing_is_left_running_when_the_demo_is_killed(tmp_path: Path) -> None:
    with demo(tmp_path, "--logins", "50", "--keep", PATH=str(tmp_path)) as process:
        assert process.stdout is not None
        before = list(takewhile(lambda line: not line.startswith("Sending"), process.stdout))
        assert "  prometheus is not installed (Debian: apt-get install prometheus)" in "".join(before), "nor anything else of PATH"
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
