"""Who else may open a file that holds a secret."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.secret_files import SECRET_BYTES_MAX, check_secret_file, read_secret_file
from pipeline.settings import load
from stream_app.postgres.connection import WRITER, connection_parameters
from stream_app.postgres.settings import PostgresSettings

OPEN_MODES = [0o640, 0o604, 0o660, 0o644, 0o666, 0o610, 0o777]
SECRET = "hunter2"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text(f" {SECRET} \n")
    return path


def password(path: Path) -> None:
    settings = load(PostgresSettings, postgres_dsn=SecretStr("host=h"), postgres_password_file=path)
    connection_parameters(settings, role=WRITER, application_name="test")


def key(path: Path) -> None:
    settings = load(PostgresSettings, postgres_dsn=SecretStr("host=h"), postgres_sslkey=path)
    connection_parameters(settings, role=WRITER, application_name="test")


every_file = pytest.mark.parametrize(("setting", "use"), [("POSTGRES_PASSWORD_FILE", password), ("POSTGRES_SSLKEY", key)])


@every_file
@pytest.mark.parametrize("mode", OPEN_MODES)
def test_one_that_others_can_read_or_write_is_refused_with_the_way_out(
    setting: str, use: Callable[[Path], None], mode: int, secret_file: Path
) -> None:
    secret_file.chmod(mode)
    with pytest.raises(SettingsError, match=f"^{setting}: the file it names is open to other users of this machine; chmod 600 it$"):
        use(secret_file)
    secret_file.chmod(0o600)
    use(secret_file)


@every_file
@pytest.mark.parametrize("mode", [0o440, 0o444])
def test_one_that_is_mounted_from_somebody_else_is_theirs_to_guard(
    setting: str, use: Callable[[Path], None], mode: int, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes with fsGroup: root's, 0440; Docker: root's, 0444; and the process is somebody else, who can't change that."""
    secret_file.chmod(mode)
    owner = secret_file.stat().st_uid
    with pytest.raises(SettingsError, match=setting):
        use(secret_file)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    use(secret_file)


def test_a_link_is_judged_by_the_file_behind_it(secret_file: Path, tmp_path: Path) -> None:
    """So Kubernetes mounts a secret: the name is a link, with all rights as links have."""
    link = tmp_path / "link"
    link.symlink_to(secret_file)
    check_secret_file(link, "SOME_FILE")
    secret_file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        check_secret_file(link, "SOME_FILE")


def test_a_secret_is_read_without_its_newline_and_not_shown(secret_file: Path) -> None:
    secret = read_secret_file(secret_file, "SOME_FILE")
    assert secret.get_secret_value() == f" {SECRET} "
    assert SECRET not in repr(secret)


@pytest.mark.parametrize("use", [read_secret_file, check_secret_file])
def test_one_that_is_not_there_is_named_by_its_setting(use: Callable[[Path, str], None], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^SOME_FILE: can't read the file it names \(FileNotFoundError\)"):
        use(tmp_path / "nothing", "SOME_FILE")


def test_what_is_no_text_is_refused_without_its_content(secret_file: Path) -> None:
    secret_file.write_bytes(SECRET.encode() + b"\xff")
    with pytest.raises(SettingsError, match=r"^SOME_FILE: can't read the file it names \(UnicodeDecodeError\)") as caught:
        read_secret_file(secret_file, "SOME_FILE")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_one_without_end_is_refused(secret_file: Path) -> None:
    secret_file.write_text("x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(SettingsError, match=r"^SOME_FILE: the file it names is too large"):
        read_secret_file(secret_file, "SOME_FILE")
