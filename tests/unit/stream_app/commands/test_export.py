"""`login-stream export`: all of a part or nothing, and no file of somebody else's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stream_app.commands.export import export

PROJECT = Path(__file__).parents[4]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


def files_below(directory: Path) -> Iterator[Path]:
    return (file.relative_to(directory) for file in sorted(directory.rglob("*")) if file.is_file())


@pytest.mark.parametrize("part", ["grafana", "prometheus"])
def test_a_part_is_written_whole_and_again_is_no_change(part: str, tmp_path: Path) -> None:
    for _ in range(2):
        result = run(part, tmp_path / "there")
        assert result.exit_code == 0, result.output
    assert list(files_below(tmp_path / "there")) == list(files_below(PROJECT / part))
    assert f"{len(list(files_below(PROJECT / part)))} files in" in result.output


def test_a_file_that_differs_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    ours = tmp_path / "rules" / "login_stream.yml"
    ours.parent.mkdir()
    ours.write_text("of somebody else")
    refused = run("prometheus", tmp_path)
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: {ours} is there and differs: --overwrite replaces them\n"
    assert list(files_below(tmp_path)) == [Path("rules/login_stream.yml")]
    assert run("prometheus", tmp_path, "--overwrite").exit_code == 0
    assert ours.read_bytes() == (PROJECT / "prometheus" / "rules" / "login_stream.yml").read_bytes()


def test_what_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rules" / "login_stream.yml").mkdir(parents=True)
    (tmp_path / "file").touch()
    for place, named in ((tmp_path, tmp_path / "rules" / "login_stream.yml"), (tmp_path / "file" / "below", tmp_path / "file")):
        result = run("prometheus", place)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {named}")
        assert "can't be written" in result.stderr
        assert result.stderr.count(os.linesep) == 1


def test_a_link_is_replaced_and_what_it_points_to_is_let_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("of somebody else")
    link = tmp_path / "there" / "rules" / "login_stream.yml"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    assert run("prometheus", tmp_path / "there", "--overwrite").exit_code == 0
    assert (tmp_path / "elsewhere").read_text() == "of somebody else"
    assert not link.is_symlink()
    assert list(files_below(tmp_path / "there")) == list(files_below(PROJECT / "prometheus"))
