"""`faust -A stream_app dead-letters show`, `export`, `discard` and `purge`: opened for a reason, on record; closed for one, too."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from click.testing import Result
from integration.replay_scene import log_in
from login_records import record

from dev_servers.postgres import Postgres
from stream_app.commands.keys import create_keysets
from stream_app.dead_letters import Opener, Sealer
from stream_app.large_records import Excerpt, LargeRecord
from stream_app.positions import Partition
from stream_app.postgres.connection import ANALYST, MONITOR, OPERATOR, PRIVACY_OFFICER, WRITER

Command = Callable[..., Result]
MESSAGE = "00000000-0000-4000-8000-00000000000{}"
BODY = b'{"ip": "203.0.113.7",\n\x1b[2J \xff}'
REASON = ("--reason", "ticket 4711")
AUDIT = "SELECT who, action, target, reason FROM operator_actions ORDER BY id"


class Letters:
    """Two dead letters, 1 whole and 2 of a record that was too large; an operator is logged in."""

    def __init__(self, dsn: str, keys: dict[str, Path]) -> None:
        self.dsn = dsn
        self.keys = keys
        sealer = Sealer.load(keys["DEAD_LETTER_PUBLIC_KEYSET_FILE"])
        place = Partition("logins", 0)
        large = LargeRecord(offset=2, timestamp=7, size=9_000_000, value_excerpt=Excerpt.of([b"first \x00 bytes"]))
        self.add(1, "not_json", sealer.seal(place, record(BODY, 1, headers_=(("source", b"queue\n"), ("none", None)))))
        self.add(2, "record_too_large", sealer.seal(place, large))

    def add(self, number: int, reason: str, sealed: bytes) -> None:
        self.query(
            "INSERT INTO dead_letters (consumer_group, topic, partition, record_offset, message_id, sent_at, reason, sealed)"
            " VALUES ('g', 'logins', 0, %s, %s, '2026-01-02 03:00:00Z', %s, %s)",
            (number, MESSAGE.format(number), reason, sealed),
        )

    def query(self, statement: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def resolutions(self) -> list[str | None]:
        return [resolution for (resolution,) in self.query("SELECT resolution FROM dead_letters ORDER BY record_offset")]


@pytest.fixture
def letters(postgres: Postgres, migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Letters]:
    keys = {file.setting: path for file, path in create_keysets(tmp_path / "keys").items()}
    made = Letters(migrated_database, keys)
    monkeypatch.setenv("POSTGRES_DSN", log_in(postgres, migrated_database, "letters_operator"))
    monkeypatch.setenv("DEAD_LETTER_PRIVATE_KEYSET_FILE", str(keys["DEAD_LETTER_PRIVATE_KEYSET_FILE"]))
    yield made
    made.query("DROP ROLE letters_operator")


def test_one_is_shown_without_anything_that_a_terminal_obeys(command: Command, letters: Letters) -> None:
    result = command("dead-letters", "show", MESSAGE.format(1), *REASON)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    assert r'value: {"ip": "203.0.113.7",\n\x1b[2J \xff}' in lines
    assert {
        "reason: not_json",
        r"header source: queue\n",
        "header none: -",
        "key: key",
        "sent_at: 2026-01-02T03:00:00+00:00",
    } <= set(lines)
    assert letters.query(AUDIT) == [("letters_operator", "dead-letters show", MESSAGE.format(1), "ticket 4711")]


def test_raw_is_the_value_byte_for_byte_and_json_has_all_of_it(command: Command, letters: Letters) -> None:
    assert command("dead-letters", "show", MESSAGE.format(1), "--raw", *REASON).stdout_bytes == BODY
    (shown,) = json.loads(command("--json", "dead-letters", "show", MESSAGE.format(1), *REASON).stdout)
    assert base64.b64decode(shown["value_base64"]) == BODY
    assert shown["headers"] == [
        {"name": "source", "value_base64": base64.b64encode(b"queue\n").decode()},
        {"name": "none", "value_base64": None},
    ]
    assert len(letters.query(AUDIT)) == 2


@pytest.mark.usefixtures("letters")
def test_of_a_record_that_was_too_large_it_is_said_what_there_is(command: Command) -> None:
    shown = command("dead-letters", "show", MESSAGE.format(2), *REASON).stdout
    assert "too large to be kept: 9000000 bytes; replay can't send it" in shown
    assert r"begins first \x00 bytes" in shown
    raw = command("dead-letters", "show", MESSAGE.format(2), "--raw", *REASON)
    assert (raw.exit_code, "too large to be kept" in raw.stderr) == (2, True)
    (as_json,) = json.loads(command("--json", "dead-letters", "show", MESSAGE.format(2), *REASON).stdout)
    assert (as_json["size"], as_json["value"]["size"]) == (9_000_000, 13)


def test_all_with_one_message_id_are_shown(command: Command, letters: Letters) -> None:
    letters.query(
        "UPDATE dead_letters SET message_id = %s, sent_at = sent_at + record_offset * interval '1s'", (MESSAGE.format(1),)
    )
    assert command("dead-letters", "show", MESSAGE.format(1), *REASON).stdout.count("message_id: ") == 2
    assert command("dead-letters", "show", MESSAGE.format(1), "--raw", *REASON).exit_code == 2


@pytest.mark.parametrize("reason", [(), ("--reason", " "), ("--reason", "x" * 501), ("--reason", "a\x1b")])
def test_without_a_reason_nothing_is_opened_discarded_or_written(
    command: Command, letters: Letters, reason: tuple[str, ...], tmp_path: Path
) -> None:
    for arguments in (("show", MESSAGE.format(1)), ("discard", MESSAGE.format(1), "--yes"), ("export", str(tmp_path / "out"))):
        result = command("dead-letters", *arguments, *reason)
        assert (result.exit_code, "203.0.113.7" in result.output) == (2, False)
    assert (letters.query(AUDIT), letters.resolutions(), (tmp_path / "out").exists()) == ([], [None, None], False)


def test_nothing_is_opened_before_the_line_is_committed(
    command: Command, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Opener.open

    def watched(opener: Opener, sealed: bytes, **place: Any) -> object:
        seen.append(len(letters.query(AUDIT)))
        return real(opener, sealed, **place)

    monkeypatch.setattr(Opener, "open", watched)
    command("dead-letters", "show", MESSAGE.format(1), *REASON)
    assert seen == [1]
    letters.query(f"REVOKE ALL ON operator_actions FROM {OPERATOR}; REVOKE INSERT (reason) ON operator_actions FROM {OPERATOR}")
    refused = command("dead-letters", "show", MESSAGE.format(1), *REASON)
    assert (refused.exit_code, "permission denied" in refused.stderr, seen) == (1, True, [1])


def test_another_keyset_none_and_the_public_one_open_nothing(command: Command, letters: Letters, tmp_path: Path) -> None:
    others = {file.setting: path for file, path in create_keysets(tmp_path / "others").items()}
    setting = "DEAD_LETTER_PRIVATE_KEYSET_FILE"
    other = command("dead-letters", "show", MESSAGE.format(1), *REASON, **{setting: str(others[setting])})
    assert (other.exit_code, f"another keyset than {setting}" in other.stderr) == (1, True)
    for path in ("", str(tmp_path / "absent"), str(letters.keys["DEAD_LETTER_PUBLIC_KEYSET_FILE"])):
        refused = command("dead-letters", "show", MESSAGE.format(1), *REASON, **{setting: path})
        assert (refused.exit_code, refused.stderr.startswith(f"Error: {setting}")) == (1, True), refused.output


@pytest.mark.parametrize("role", [WRITER, ANALYST, PRIVACY_OFFICER, MONITOR])
def test_every_other_role_is_refused(command: Command, letters: Letters, role: str) -> None:
    letters.query(f"REVOKE {OPERATOR} FROM letters_operator; GRANT {role} TO letters_operator")
    for arguments in (("show", MESSAGE.format(1), *REASON), ("replay", "--yes"), ("discard", "--limit", "1", "--yes", *REASON)):
        result = command("dead-letters", *arguments, KAFKA_TOPIC="logins")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: Postgres refuses the role {OPERATOR} (SQLSTATE 42501)")
    assert letters.resolutions() == [None, None]


def test_an_unknown_one_is_told(command: Command, letters: Letters) -> None:
    result = command("dead-letters", "show", MESSAGE.format(9), *REASON)
    assert (result.exit_code, "there is no dead letter" in result.stderr) == (1, True)
    assert letters.query(AUDIT) == []


def test_discarded_ones_are_closed_for_a_reason(command: Command, letters: Letters) -> None:
    result = command("dead-letters", "discard", "--reason-code", "not_json", "--yes", "--reason", "a test of the sender's")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 discarded"), result.output
    assert letters.resolutions() == ["discarded", None]
    assert letters.query("SELECT resolved_at > now() - interval '1 minute' FROM dead_letters WHERE record_offset = 1") == [(True,)]
    assert letters.query(AUDIT) == [("letters_operator", "dead-letters discard", "dead_letters", "a test of the sender's")]
    assert command("dead-letters", "discard", MESSAGE.format(1), "--yes", *REASON).stdout == "0 discarded\n"
    everything = command("dead-letters", "discard", "--yes", *REASON)
    assert (everything.exit_code, letters.resolutions()) == (2, ["discarded", None]), "a choice must be given"


def test_an_export_is_its_owners_and_sealed_unless_it_is_to_be_opened(command: Command, letters: Letters, tmp_path: Path) -> None:
    sealed, opened = tmp_path / "sealed", tmp_path / "opened"
    assert command("dead-letters", "export", str(sealed), *REASON, DEAD_LETTER_PRIVATE_KEYSET_FILE="").exit_code == 0
    private = str(letters.keys["DEAD_LETTER_PRIVATE_KEYSET_FILE"])
    assert (
        command("dead-letters", "export", str(opened), "--opened", *REASON, DEAD_LETTER_PRIVATE_KEYSET_FILE=private).exit_code == 0
    )
    assert {path.stat().st_mode & 0o777 for path in (sealed, opened)} == {0o600}
    first, second = map(json.loads, sealed.read_text().splitlines())
    assert (first["message_id"], second["reason"], "value_base64" in first) == (MESSAGE.format(1), "record_too_large", False)
    place: Any = {"topic": "logins", "partition": 0, "offset": 1}
    original: Any = Opener.load(Path(private)).open(base64.b64decode(first["sealed_base64"]), **place)
    assert original.value == BODY
    first, second = map(json.loads, opened.read_text().splitlines())
    assert (base64.b64decode(first["value_base64"]), second["size"]) == (BODY, 9_000_000)
    assert [details["opened"] for (details,) in letters.query("SELECT details FROM operator_actions ORDER BY id")] == [False, True]
    again = command("dead-letters", "export", str(opened), *REASON)
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)


def test_an_export_that_fails_leaves_no_file(command: Command, letters: Letters, tmp_path: Path) -> None:
    letters.query(r"UPDATE dead_letters SET sealed = '\x00' WHERE record_offset = 2")
    result = command("dead-letters", "export", str(tmp_path / "out"), "--opened", *REASON)
    assert (result.exit_code, "doesn't open" in result.stderr, (tmp_path / "out").exists()) == (1, True, False)


def test_what_is_purged_between_choice_and_reading_is_told(command: Command, letters: Letters, tmp_path: Path) -> None:
    """Here the line about it purges: it is written between the two."""
    letters.query(
        "CREATE FUNCTION public.purge() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS"
        " $$ BEGIN DELETE FROM public.dead_letters WHERE record_offset = 1; RETURN NEW; END $$;"
        "CREATE TRIGGER purge AFTER INSERT ON operator_actions FOR EACH ROW EXECUTE FUNCTION public.purge()"
    )
    exported = command("dead-letters", "export", str(tmp_path / "out"), *REASON)
    assert (exported.exit_code, exported.stderr) == (0, "1 were purged meanwhile\n")
    assert [json.loads(line)["message_id"] for line in (tmp_path / "out").read_text().splitlines()] == [MESSAGE.format(2)]
    letters.add(1, "not_json", b"sealed")
    shown = command("dead-letters", "show", MESSAGE.format(1), *REASON)
    assert (shown.exit_code, shown.stderr) == (
        1,
        f"Error: the dead letter with the message id {MESSAGE.format(1)} was purged meanwhile\n",
    )


def test_only_closed_ones_are_purged_and_only_old_ones(command: Command, letters: Letters) -> None:
    letters.query("UPDATE dead_letters SET failed_at = now() - interval '300 days'")
    assert command("dead-letters", "purge", "--older-than", "30", "--yes").stdout == "0 removed\n", "open"
    command("dead-letters", "discard", MESSAGE.format(1), "--yes", *REASON)
    assert command("dead-letters", "purge", "--older-than", "30", "--yes").stdout == "0 removed\n", "closed a moment ago"
    letters.query("UPDATE dead_letters SET resolved_at = now() - interval '31 days' WHERE resolution IS NOT NULL")
    assert command("dead-letters", "purge", "--older-than", "30", "--yes").stdout == "1 removed\n"
    assert letters.resolutions() == [None]
    assert letters.query(AUDIT)[-1][1] == "dead-letters purge"
