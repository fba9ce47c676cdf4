"""What the demo decides before and after the servers run."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dev_servers.demo import DemoError, bodies_for, check_end, main, state_directory
from dev_servers.demo_progress import Counts
from dev_servers.made_up_logins import OTHER_KIND


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
