from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import SettingsError
from pipeline.secret_files import read_secret_file
from pipeline.settings import KafkaSettings, Settings, load


class Secrets(Settings):
    window_rows: int
    password: int = 0


def test_a_wrong_value_is_named_by_its_variable_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load(Secrets)
    assert "PASSWORD: " in str(caught.value)
    assert "WINDOW_ROWS: " in str(caught.value), "all problems at once"
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_not_even_pydantics_own_error_quotes_a_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Secrets(window_rows=1, password="hunter2")
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_TOPIC", "")
    assert load(KafkaSettings).kafka_topic == "logins"


def test_a_secret_file_is_read_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text(" word \n")
    secret = read_secret_file(tmp_path / "secret", "SOME_FILE")
    assert secret.get_secret_value() == " word "
    assert "word" not in repr(secret)


def test_a_secret_file_that_is_not_there_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^SOME_FILE: "):
        read_secret_file(tmp_path / "nothing", "SOME_FILE")
