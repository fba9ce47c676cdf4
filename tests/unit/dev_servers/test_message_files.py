"""What ``make demo INPUT=FILE`` makes of a file."""

import gzip
from pathlib import Path

import pytest

from dev_servers.message_files import MessageFileError, read_bodies


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "input"


@pytest.mark.parametrize(
    ("content", "bodies"),
    [
        ('[{"a": 1}, {"b":[2,  3]}]', ['{"a": 1}', '{"b":[2,  3]}']),
        ('\n[\n  {"a":\n 1.50},\n  "text, with ] and }" ,null\n]\n', ['{"a":\n 1.50}', '"text, with ] and }"', "null"]),
        ('{"a": 1}\n{"b": 2}\n', ['{"a": 1}', '{"b": 2}']),
        ('{"a": 1}\r\n\r\n  {"b": 2}', ['{"a": 1}', '{"b": 2}']),
        ('{\n  "a": 1\n}\n', ['{\n  "a": 1\n}']),
        ("[1]\n[2]\n", ["[1]", "[2]"]),
        ('{"a": 1, "a": 2}', ['{"a": 1, "a": 2}']),
        ('["é\u2028"]', ['"é\u2028"']),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_each_element_or_line_is_a_body_as_it_stands(file: Path, content: str, bodies: list[str], packed: bool) -> None:  # noqa: FBT001
    raw = content.encode()
    file.write_bytes(gzip.compress(raw) if packed else raw)
    assert read_bodies(file) == bodies


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no message in it"),
        (b"[]", "there is no message in it"),
        (b"\n \n", "there is no message in it"),
        (b'[{"a": 1}, {"a":', "line 1 is not a JSON value"),
        (b"[1, 2,]", "line 1 is not a JSON value"),
        (b'{"a": 1}\nsecret\n', "line 2 is not a JSON value"),
        (b'"\xff"', "not UTF-8 text at byte 1"),
        (gzip.compress(b"[1]", mtime=0)[:-6], "can't be read"),
        (b"[" * 100_000, "line 1 is not a JSON value"),
    ],
)
def test_what_is_no_message_file_is_refused_without_its_content(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(MessageFileError, match=message) as error:
        read_bodies(file)
    assert "secret" not in str(error.value)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(MessageFileError, match="input: can't be read"):
        read_bodies(file)
