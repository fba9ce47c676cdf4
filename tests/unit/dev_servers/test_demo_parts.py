"""What the demo decides before and after the servers run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from dev_servers.demo import DemoError, bodies_for, check_end, main, state_directory
from dev_servers.demo_limits import Use, Waiting, what_limited
from dev_servers.demo_place import DemoPlace
from dev_servers.demo_progress import Counts
from dev_servers.made_up_logins import OTHER_KIND
from dev_servers.postgres import program
from dev_servers.process import DevServerError


def counts(rows: int, dead_letters: int) -> Counts:
    return Counts(sent=rows + dead_letters, queued=0, in_topic=rows + dead_letters, rows=rows, dead_letters=dead_letters)


def test_made_up_messages_are_logins_and_one_of_another_kind() -> None:
    bodies = bodies_for(None, 20)
    assert len(bodies) == 21
    assert bodies.count(OTHER_KIND) == 1
    assert sum("user_id" in json.loads(body) for body in bodies) == 20


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "messages"
    file.write_text('[{"a": 1}, 2]')
    assert bodies_for(file, 20) == ['{"a": 1}', "2"]


@pytest.mark.parametrize(
    ("end", "dead_letters", "as_expected"),
    [
        (counts(99, 1), 1, True),
        (counts(99, 1), None, True),
        (counts(90, 10), None, True),
        (counts(100, 0), 1, False),
        (counts(98, 2), 1, False),
        (counts(100, 1), 1, False),
        (counts(99, 0), None, False),
    ],
)
def test_the_end_is_every_message_once(end: Counts, dead_letters: int | None, as_expected: bool) -> None:  # noqa: FBT001
    if as_expected:
        check_end(end, 100, dead_letters)
    else:
        with pytest.raises(DemoError, match="expected the end of 100 messages"):
            check_end(end, 100, dead_letters)


def test_a_temporary_directory_is_gone_afterwards_and_a_chosen_one_stays(tmp_path: Path) -> None:
    with state_directory(None) as directory:
        assert directory.is_dir()
    assert not directory.exists()
    with state_directory(tmp_path / "chosen") as directory:
        assert directory == tmp_path / "chosen"
    assert directory.is_dir()


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
    with pytest.raises(DemoError, match="is not empty"), state_directory(tmp_path):
        pass


def test_a_wrong_file_ends_the_demo_before_anything_is_started(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--input", str(tmp_path / "absent.json")])
    assert result.exit_code == 1
    assert "absent.json: can't be read" in result.output
    assert "Starting" not in result.output


def use(busy_seconds: float, **cpu_seconds: float) -> Use:
    return Use(seconds=10.0, cores=2, busy_seconds=busy_seconds, cpu_seconds=cpu_seconds)


def waited(*, in_queue: float = 0.0, in_topic: float = 0.0) -> Waiting:
    return Waiting(looks=9, in_queue=in_queue, in_topic=in_topic)


@pytest.mark.parametrize(
    ("used", "waiting", "limit"),
    [
        (use(19.0), waited(in_queue=900), "this machine, which everything shares. 1.9 of 2 cores"),
        (use(10.0), waited(in_queue=500, in_topic=300), "the queue and the bridge: messages waited there. 1.0 of 2 cores"),
        (use(10.0), waited(in_queue=100, in_topic=300), "the workers and Postgres: messages waited in the topic."),
        (use(10.0), waited(in_queue=10, in_topic=3), "sending: whatever was sent went through at once."),
    ],
)
def test_what_limited_it_is_said(used: Use, waiting: Waiting, limit: str) -> None:
    assert what_limited(used, waiting, total=1_000)[0].startswith(f"What limited it: {limit}")


def test_who_used_the_cores_is_said_most_first_and_the_rest_together() -> None:
    lines = what_limited(use(10.0, elasticmq=5.0, worker=2.0, sending=0.01), waited(), total=1_000)
    assert lines[1] == "  ElasticMQ (for SQS) 50% · others 30% · workers 20%"


def test_what_waits_is_averaged_over_the_time_of_sending() -> None:
    waiting = Waiting()
    for sent, queued, in_topic, rows in ((0, 0, 0, 0), (100, 60, 40, 30), (200, 80, 120, 90), (200, 0, 200, 200)):
        waiting.add(Counts(sent, queued, in_topic, rows, dead_letters=0))
    assert (waiting.in_queue, waiting.in_topic) == (70, 20)


def test_a_demo_that_stays_up_is_found_by_its_file_and_alone_there(tmp_path: Path) -> None:
    place = DemoPlace(tmp_path / "made" / "demo.env")
    with pytest.raises(DevServerError, match="none stays up here"):
        place.processes()
    with place.taken():
        place.write_environment({"SQS_QUEUE_URL": "http://127.0.0.1:1/a queue"})
        place.write_processes({"bridge": 12})
        assert DemoPlace(place.environment_file).processes() == {"bridge": 12}
        with pytest.raises(DevServerError, match="another one stays up"), DemoPlace(place.environment_file).taken():
            pass
        shell = f'set -a; . {place.environment_file}; echo "$SQS_QUEUE_URL"; command -v psql; command -v faust'
        url, psql, faust = subprocess.run(["sh", "-euc", shell], check=True, capture_output=True, text=True).stdout.splitlines()
        assert (url, Path(psql), Path(faust)) == (
            "http://127.0.0.1:1/a queue",
            program("psql"),
            Path(sys.executable).with_name("faust"),
        )
    assert list(place.environment_file.parent.iterdir()) == []
    with pytest.raises(DevServerError, match="none stays up here"):
        place.processes()
