"""`faust -A stream_app positions`, and `positions reset`: shown first, asked, and a running worker fenced."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from click.testing import Result
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - psycopg2 names its class like a module

Command = Callable[..., Result]
RESET = ("positions", "reset", "--topic", "logins", "--partition", "0", "--reason", "ticket 1")
ADOPT = ("positions", "adopt", "--topic", "logins", "--from", "stream_app", "--reason", "ticket 2", "--yes")
ACTIONS = "SELECT who, action, target, details, reason FROM operator_actions ORDER BY id"
STORED = "SELECT consumer_group, topic, partition, next_offset, epoch FROM stream_positions ORDER BY 1, 2, 3"


@pytest.fixture
def cursor(migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cursor]:
    """Two partitions are stored: one at 500, one at 7."""
    monkeypatch.setenv("POSTGRES_DSN", migrated_database)
    with closing(psycopg2.connect(migrated_database)) as connection:
        connection.autocommit = True
        with connection.cursor() as open_cursor:
            open_cursor.execute(
                "INSERT INTO stream_positions VALUES ('stream_app', 'logins', 0, 500, 4, 'host:1', '2026-01-02 03:00Z'),"
                " ('stream_app', 'logins', 1, 7, 1, 'host:2', '2026-01-02 03:00Z')"
            )
            yield open_cursor


def stored(cursor: Cursor) -> list[tuple[object, ...]]:
    cursor.execute(STORED)
    return cursor.fetchall()


@pytest.mark.usefixtures("cursor")
def test_all_are_listed(command: Command) -> None:
    assert command("positions").stdout.splitlines() == [
        "consumer_group  topic   partition  next_offset  epoch  owner   updated_at",
        "stream_app      logins          0          500      4  host:1  2026-01-02T03:00:00Z",
        "stream_app      logins          1            7      1  host:2  2026-01-02T03:00:00Z",
    ]
    assert json.loads(command("--json", "positions").stdout)[1] == {
        "consumer_group": "stream_app",
        "topic": "logins",
        "partition": 1,
        "next_offset": 7,
        "epoch": 1,
        "owner": "host:2",
        "updated_at": "2026-01-02T03:00:00Z",
    }


def test_what_others_stored_moves_no_cursor_and_forges_no_line(command: Command, cursor: Cursor) -> None:
    cursor.execute("ALTER TABLE stream_positions DROP CONSTRAINT stream_positions_printable")  # as a row from before it may be
    forged = "\x1b[2Jhost:1\n stream_app  logins  9"
    cursor.execute("UPDATE stream_positions SET owner = %s", (forged,))
    shown = command("positions").stdout.splitlines()
    assert len(shown) == 3
    assert all(line.isprintable() for line in shown)
    assert json.loads(command("--json", "positions").stdout)[0]["owner"] == forged


def test_none_is_said(command: Command, migrated_database: str) -> None:
    assert command("positions", POSTGRES_DSN=migrated_database).stdout == "no partition was claimed yet\n"


def test_reset_moves_one_position_and_fences_its_worker(command: Command, cursor: Cursor) -> None:
    result = command(*RESET, "--to", "0", "--yes")
    assert result.exit_code == 0
    assert "Records 0 to 499 will be read again; those that are in the tables stay as they are." in result.stdout
    assert result.stdout.endswith("logins/0 of stream_app: next_offset 0, epoch 5\n")
    assert stored(cursor) == [("stream_app", "logins", 0, 0, 5), ("stream_app", "logins", 1, 7, 1)]
    cursor.execute("SELECT owner, now() - updated_at < interval '1 minute', topic_id FROM stream_positions WHERE partition = 0")
    assert cursor.fetchall() == [("positions reset by postgres", True, None)], "it is for whichever topic the next claim finds"


def test_skipping_is_said(command: Command, cursor: Cursor) -> None:
    assert "Records 500 to 599 will not be read: they become no rows." in command(*RESET, "--to", "600", "--yes").stdout
    assert stored(cursor)[0][3] == 600
    cursor.execute(ACTIONS)
    details = {"from": 500, "to": 600, "skipped": 100}
    assert cursor.fetchall() == [("postgres", "positions reset", "logins/0 of stream_app", details, "ticket 1")]
    (action,) = json.loads(command("--json", "positions", "history").stdout)
    assert (action["action"], json.loads(action["details"]), action["reason"]) == ("positions reset", details, "ticket 1")


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
def test_no_reason_no_reset(command: Command, cursor: Cursor, reason: str) -> None:
    result = command(*RESET[:-1], reason, "--to", "0", "--yes")
    assert (result.exit_code, "--reason: expected" in result.stderr) == (2, True)
    assert stored(cursor)[0][3:] == (500, 4)


def test_a_group_adopts_the_positions_of_another_once(command: Command, cursor: Cursor) -> None:
    result = command(*ADOPT, "--group", "renamed")
    assert result.stdout.endswith("renamed begins at logins/0: 500, logins/1: 7\n")
    assert stored(cursor) == [
        ("renamed", "logins", 0, 500, 1),
        ("renamed", "logins", 1, 7, 1),
        ("stream_app", "logins", 0, 500, 5),
        ("stream_app", "logins", 1, 7, 2),
    ], "what a worker of the other group has in hand is fenced"
    cursor.execute(ACTIONS)
    assert cursor.fetchall() == [("postgres", "positions adopt", "logins of stream_app by renamed", {"0": 500, "1": 7}, "ticket 2")]
    again = command(*ADOPT, "--group", "renamed")
    assert (again.exit_code, again.stderr) == (
        1,
        "Error: renamed has positions for logins already; `positions reset` sets them\n",
    )
    missing = command(*ADOPT[:5], "nobody", *ADOPT[6:], "--group", "third")
    assert (missing.exit_code, missing.stderr) == (1, "Error: nobody has no position for logins\n")


def test_nothing_done_by_hand_is_said(command: Command, cursor: Cursor) -> None:
    cursor.execute("TRUNCATE stream_positions")
    assert command("positions", "history").stdout == "nothing was done to positions by hand\n"


def test_nobody_to_ask_is_no_yes(command: Command, cursor: Cursor) -> None:
    result = command(*RESET, "--to", "0", standard_input="y\n")
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    assert stored(cursor)[0][3:] == (500, 4)


def reset_at_a_terminal(answer: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str, str]:
    """The real command line with a terminal to ask at; ``meanwhile`` happens between question and answer. Exit code and outputs."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "stream_app", *RESET, "--to", "0"],
            cwd=Path(__file__).parents[2],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            output = ""
            while not output.endswith("Set next_offset to 0? [y/N]:") and (character := process.stdout.read(1)):
                output += character
            meanwhile()
            os.write(ours, f"{answer}\n".encode())
            rest, error = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode, output + rest, error


@pytest.mark.parametrize(("answer", "exit_code", "next_offset"), [("n", 1, 500), ("", 1, 500), ("y", 0, 0)])
def test_person_is_shown_and_asked(cursor: Cursor, answer: str, exit_code: int, next_offset: int) -> None:
    code, output, error = reset_at_a_terminal(answer)
    assert code == exit_code, error
    assert output.index("500") < output.index("Set next_offset to 0? [y/N]:")
    assert stored(cursor)[0][3] == next_offset


def test_write_between_question_and_answer_is_not_overwritten(cursor: Cursor) -> None:
    code, _, error = reset_at_a_terminal(
        "y", lambda: cursor.execute("UPDATE stream_positions SET epoch = epoch + 1, next_offset = 800 WHERE partition = 0")
    )
    assert code == 1
    assert error == "Error: a worker has moved the position in between; nothing was changed: look again\n"
    assert stored(cursor)[0][3:] == (800, 5)


def test_claim_of_a_stopped_partition_between_question_and_answer_does_not_matter(cursor: Cursor) -> None:
    code, _, error = reset_at_a_terminal(
        "y", lambda: cursor.execute("UPDATE stream_positions SET epoch = epoch + 1 WHERE partition = 0")
    )
    assert code == 0, error
    assert stored(cursor)[0][3:] == (0, 6)


@pytest.mark.usefixtures("cursor")
def test_partition_that_was_never_claimed_is_refused(command: Command) -> None:
    result = command("positions", "reset", "--topic", "logins", "--partition", "9", "--to", "0", "--reason", "x", "--yes")
    assert result.exit_code == 1
    assert result.stderr == "Error: no position is stored for logins/9: a worker begins where its log does\n"


def test_several_groups_have_to_be_told_apart(command: Command, cursor: Cursor) -> None:
    cursor.execute("INSERT INTO stream_positions VALUES ('other', 'logins', 0, 3, 1, 'host:3')")
    result = command(*RESET, "--to", "1", "--yes")
    assert result.exit_code == 2
    assert "add --group other or stream_app" in result.stderr
    assert command(*RESET, "--to", "1", "--group", "other", "--yes").exit_code == 0
    assert stored(cursor) == [("other", "logins", 0, 1, 2), ("stream_app", "logins", 0, 500, 4), ("stream_app", "logins", 1, 7, 1)]
