import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from login_records import PLACE, record

from pipeline.errors import FatalError
from stream_app.commands.keys import KEYSET_FILES, MASKING, create_keysets, keys
from stream_app.dead_letters import Opener, OriginalRecord, Sealer
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods


def test_the_keysets_it_makes_work_together(tmp_path: Path) -> None:
    paths = {file.setting: path for file, path in create_keysets(tmp_path).items()}

    masker = Masker.load(
        parse_methods("device_id=hmac"),
        keyset_file=paths["MASKING_KEYSET_FILE"],
        hmac_keyset_file=paths["MASKING_HMAC_KEYSET_FILE"],
    )
    assert masker.reveal("ip", masker.mask("ip", [b"\x01\x02\x03\x04"])[0]) == "1.2.3.4"
    assert masker.mask("device_id", [b"x"])
    sealed = Sealer.load(paths["DEAD_LETTER_PUBLIC_KEYSET_FILE"]).seal(PLACE, record(b"x"))
    opener = Opener.load(paths["DEAD_LETTER_PRIVATE_KEYSET_FILE"])
    original = opener.open(sealed, topic="logins", partition=3, offset=0)
    assert isinstance(original, OriginalRecord)
    assert original.value == b"x"


def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = create_keysets(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert [path.name for path in paths.values()] == [file.name for file in KEYSET_FILES]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths.values()} == {0o600}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_each_call_makes_other_keys(tmp_path: Path) -> None:
    one, other = create_keysets(tmp_path / "one"), create_keysets(tmp_path / "other")

    assert all(one[file].read_text() != other[file].read_text() for file in KEYSET_FILES)


@pytest.mark.parametrize("present", [file.name for file in KEYSET_FILES])
def test_an_existing_file_is_kept_and_nothing_else_is_written(present: str, tmp_path: Path) -> None:
    (tmp_path / present).write_text("precious")

    with pytest.raises(FatalError, match=rf"{present} exists already: nothing was written"):
        create_keysets(tmp_path)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {present: "precious"}


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / MASKING.name).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FatalError, match="exists already"):
        create_keysets(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FatalError, match=r"can't write keysets to .*: Not a directory; nothing was written"):
        create_keysets(tmp_path / "file" / "directory")


def test_the_command_prints_the_environment_and_who_holds_what_but_no_key(tmp_path: Path) -> None:
    result = CliRunner().invoke(keys, ["create", "--directory", str(tmp_path / "my keys")])

    assert result.exit_code == 0
    lines = result.output.splitlines()
    for file in KEYSET_FILES:
        path = tmp_path / "my keys" / file.name
        assert f"{file.setting}='{path}'" in lines
        assert f"# {file.holder}" in lines
        for key in json.loads(path.read_text())["key"]:
            assert key["keyData"]["value"] not in result.output


def test_a_second_call_ends_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    assert CliRunner().invoke(keys, ["create", "--directory", str(tmp_path)]).exit_code == 0

    result = CliRunner().invoke(keys, ["create", "--directory", str(tmp_path)])

    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "exists already" in result.output
    assert result.output.count("\n") == 1
