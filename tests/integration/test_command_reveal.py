"""`faust -A stream_app reveal`: a reason, the officer's role and a committed line first; then the values."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from click.testing import Result
from psycopg2.errors import CheckViolation

from dev_servers.postgres import Postgres
from stream_app.commands.keys import KEYSET_FILES, create_keysets
from stream_app.ip_address import pack
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods
from stream_app.postgres.connection import ANALYST, OPERATOR, PRIVACY_OFFICER, WRITER

IP = "203.0.113.7"
IPV6 = "2001:db8::7"
DEVICE = "593-47-5928"
REASON = "ticket 4711: court order"
PAGE = (Path(__file__).parents[2] / "docs" / "privacy-officer.md").read_text()
Command = Callable[..., Result]


@pytest.fixture(scope="module")
def keyset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = create_keysets(tmp_path_factory.mktemp("keysets"))
    return {file.setting: path for file, path in paths.items() if file in KEYSET_FILES}["MASKING_KEYSET_FILE"]


@pytest.fixture(scope="module")
def tokens(keyset_file: Path) -> dict[str, str]:
    """The token of each value."""
    masker = Masker.load(parse_methods(""), keyset_file=keyset_file)
    addresses = masker.mask("ip", [pack(IP), pack(IPV6)])
    return {IP: addresses[0], IPV6: addresses[1], DEVICE: masker.mask("device_id", [DEVICE.encode()])[0]}


@pytest.fixture
def officer(
    postgres: Postgres, migrated_database: str, keyset_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """A login user with the officer's role is who the commands run as; the value runs a statement as the superuser."""
    database = migrated_database.rpartition("/")[2]
    monkeypatch.setenv("MASKING_KEYSET_FILE", str(keyset_file))
    monkeypatch.setenv("POSTGRES_DSN", postgres.dsn_of(database, "officer", "made-up"))
    with closing(psycopg2.connect(migrated_database)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"CREATE ROLE officer LOGIN PASSWORD 'made-up' IN ROLE {PRIVACY_OFFICER}")

        def execute(statement: str) -> list[tuple[object, ...]]:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield execute
        cursor.execute("DROP ROLE officer")


AUDIT = "SELECT who, reason, field, tokens FROM reveal_audit ORDER BY id"
Execute = Callable[[str], list[tuple[object, ...]]]


def test_tokens_are_opened_one_a_line_and_audited(command: Command, officer: Execute, tokens: dict[str, str]) -> None:
    result = command("reveal", "--field", "ip", "--reason", f"  {REASON} ", tokens[IP], tokens[IPV6], tokens[IP])
    assert (result.exit_code, result.stdout.splitlines(), result.stderr) == (0, [IP, IPV6, IP], "")
    assert command("reveal", "--field", "device_id", "--reason", REASON, tokens[DEVICE]).stdout == f"{DEVICE}\n"
    assert officer(AUDIT) == [("officer", REASON, "ip", 3), ("officer", REASON, "device_id", 1)]


def test_the_audit_is_shown_without_psql_and_without_a_keyset(
    command: Command, officer: Execute, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("reveal", "--field", "ip", "--reason", REASON, tokens[IP])
    command("reveal", "--field", "device_id", "--reason", "ticket 4712", tokens[DEVICE])
    monkeypatch.delenv("MASKING_KEYSET_FILE")
    shown = json.loads(command("reveals", "--json").stdout)
    assert [(line["who"], line["reason"], line["field"], line["tokens"]) for line in reversed(shown)] == officer(AUDIT)
    table = command("reveals", "--limit", "1").stdout.splitlines()
    assert len(table) == 2
    assert "ticket 4712" in table[1]


def test_tokens_may_come_by_standard_input(command: Command, officer: Execute, tokens: dict[str, str]) -> None:
    """So they stay out of the process list and the shell's history."""
    result = command("reveal", "--field", "ip", "--reason", REASON, standard_input=f"{tokens[IP]}\n\n{tokens[IPV6]}\n")
    assert (result.exit_code, result.stdout.splitlines()) == (0, [IP, IPV6])
    assert officer(AUDIT) == [("officer", REASON, "ip", 2)]


@pytest.mark.usefixtures("officer")
def test_json(command: Command, tokens: dict[str, str]) -> None:
    result = command("--json", "reveal", "--field", "ip", "--reason", REASON, tokens[IP], "nonsense")
    assert (result.exit_code, result.stdout) == (1, f'["{IP}", null]\n')


@pytest.mark.usefixtures("officer")
def test_token_that_does_not_open_is_told_by_its_place_and_the_others_are_shown(command: Command, tokens: dict[str, str]) -> None:
    result = command("reveal", "--field", "ip", "--reason", REASON, tokens[DEVICE], tokens[IP], IP, tokens[IPV6])
    assert (result.exit_code, result.stdout.splitlines()) == (1, [IP, IPV6])
    told = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["token 1 of 4", "token 3 of 4"]
    assert not any(value in result.stderr for value in (IP, tokens[DEVICE], DEVICE))


@pytest.mark.parametrize("reason", ["", "   ", "\t\n", "x" * 501])
def test_without_a_reason_nothing_happens(command: Command, officer: Execute, tokens: dict[str, str], reason: str) -> None:
    result = command("reveal", "--field", "ip", "--reason", reason, tokens[IP])
    assert result.exit_code == 2
    assert IP not in result.output
    assert command("reveal", "--field", "ip", tokens[IP]).exit_code == 2
    assert officer(AUDIT) == []


@pytest.mark.parametrize("reason", ["a\x1b[2J", "two\nlines", "\u202eturned"])
def test_a_reason_that_a_terminal_would_obey_is_refused(
    command: Command, officer: Execute, tokens: dict[str, str], reason: str
) -> None:
    result = command("reveal", "--field", "ip", "--reason", reason, tokens[IP])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--reason" in result.stderr
    assert officer(AUDIT) == []


def test_nobody_writes_into_the_audit_what_a_terminal_would_obey(officer: Execute) -> None:
    with pytest.raises(CheckViolation):
        officer("INSERT INTO reveal_audit (reason, field, tokens) VALUES (E'a\\x1b', 'ip', 1)")


def test_unknown_field_and_no_token_are_refused(command: Command, officer: Execute, tokens: dict[str, str]) -> None:
    assert command("reveal", "--field", "locale", "--reason", REASON, tokens[IP]).exit_code == 2
    assert command("reveal", "--field", "ip", "--reason", REASON, standard_input="").exit_code == 2
    assert officer(AUDIT) == []


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (f"REVOKE INSERT (reason) ON reveal_audit FROM {PRIVACY_OFFICER}", "permission denied for table reveal_audit"),
        ("ALTER TABLE reveal_audit RENAME TO elsewhere", 'relation "public.reveal_audit" does not exist'),
        ("ALTER ROLE officer SET default_transaction_read_only = on", "read-only"),
    ],
)
def test_nothing_is_revealed_if_the_audit_can_not_be_written(
    command: Command, officer: Execute, tokens: dict[str, str], before: str, says: str
) -> None:
    officer(before)
    result = command("reveal", "--field", "ip", "--reason", REASON, tokens[IP])
    assert result.exit_code == 1
    assert says in result.stderr
    assert IP not in result.output


def test_line_is_committed_before_a_value_is_opened(
    command: Command, officer: Execute, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment the first token is opened, another session sees the line."""
    seen: list[list[tuple[object, ...]]] = []
    real = Masker.reveal

    def watched(masker: Masker, field: str, token: str) -> str:
        seen.append(officer(AUDIT))
        return real(masker, field, token)

    monkeypatch.setattr(Masker, "reveal", watched)
    command("reveal", "--field", "ip", "--reason", REASON, tokens[IP])
    assert seen == [[("officer", REASON, "ip", 1)]]


@pytest.mark.parametrize("role", [WRITER, OPERATOR, ANALYST])
def test_every_other_role_is_refused(command: Command, officer: Execute, tokens: dict[str, str], role: str) -> None:
    officer(f"REVOKE {PRIVACY_OFFICER} FROM officer; GRANT {role} TO officer")
    result = command("reveal", "--field", "ip", "--reason", REASON, tokens[IP])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: Postgres refuses the role {PRIVACY_OFFICER} (SQLSTATE 42501)")
    assert len(result.stderr.splitlines()) == 1
    assert IP not in result.output
    assert officer(AUDIT) == []


def test_missing_keyset_and_method_without_a_way_back_leave_no_line(
    command: Command, officer: Execute, tokens: dict[str, str], tmp_path: Path
) -> None:
    absent = command("reveal", "--field", "ip", "--reason", REASON, tokens[IP], MASKING_KEYSET_FILE=str(tmp_path / "absent"))
    assert absent.exit_code == 1
    assert "MASKING_KEYSET_FILE" in absent.stderr
    one_way = command("reveal", "--field", "ip", "--reason", REASON, tokens[IP], MASKING_METHODS="ip=truncate")
    assert one_way.exit_code == 1
    assert "ip is masked by truncate (MASKING_METHODS): there is no way back" in one_way.stderr
    assert officer(AUDIT) == []


def shown_on_the_page() -> list[tuple[str, list[str]]]:
    """Each command of docs/privacy-officer.md that is shown with what it printed, in order."""
    blocks = re.findall(r"^    \$ login-stream (.*)\n((?:    .*\n)+)", PAGE, re.MULTILINE)
    return [(command, [line[4:] for line in output.splitlines()]) for command, output in blocks]


def test_the_officer_s_page_shows_what_is_printed(command: Command, officer: Execute, keyset_file: Path) -> None:
    """Its tokens are of a keyset that nobody has: those of this test's keyset for the same values stand in their place."""
    shown = shown_on_the_page()
    assert len(shown) == 5
    (one, (ip,)), (_, addresses), (_, (devices,)), (_, (_, *not_opened)), (_, (titles, *lines)) = shown
    masker = Masker.load(parse_methods(""), keyset_file=keyset_file)
    first, second = json.loads(devices)
    (page_ip,), page_devices = re.findall(r"\S+$", one), re.findall(r"\bAUwrB4\S+", shown[2][0])
    ours = {
        page_ip: masker.mask("ip", [pack(ip)])[0],
        **dict(zip(page_devices, masker.mask("device_id", [first.encode(), second.encode()]), strict=True)),
    }
    for line, expected in shown[:4]:
        for theirs, token in ours.items():
            line = line.replace(theirs, str(token))  # noqa: PLW2901 - as it is typed
        words, standard_input = shlex.split(line.partition(" < ")[0]), None
        if line.partition(" < ")[2]:
            standard_input = "\n".join(str(token) for token in masker.mask("ip", [pack(each) for each in addresses]))
        result = command(*words, standard_input=standard_input)
        assert (result.stdout + result.stderr).splitlines() == expected
        assert result.exit_code == (1 if expected[1:] == not_opened else 0)
    assert officer(AUDIT)[-1][2:] == ("device_id", 3)
    printed = command(*shlex.split(shown[4][0])).stdout.splitlines()
    assert printed[0].split() == titles.split()
    assert [re.split("  +", line.strip())[3:] for line in printed[1:]] == [re.split("  +", line.strip())[3:] for line in lines]
