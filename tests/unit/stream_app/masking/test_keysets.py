import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tink
from login_records import dead_letter_handle, hmac_handle, masking_handle
from tink import aead

from pipeline.errors import SettingsError
from pipeline.secret_files import SECRET_BYTES_MAX
from stream_app.dead_letters import Opener, Sealer
from stream_app.masking import keysets
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

Load = Callable[[Path | None], Any]


def load_hmac_only(path: Path | None) -> Masker:
    return Masker.load(parse_methods("ip=hmac,device_id=hmac"), keyset_file=None, hmac_keyset_file=path)


def load_aes_siv_only(path: Path | None) -> Masker:
    return Masker.load(parse_methods(""), keyset_file=path)


LOADERS: dict[str, Load] = {
    "MASKING_KEYSET_FILE": load_aes_siv_only,
    "MASKING_HMAC_KEYSET_FILE": load_hmac_only,
    "DEAD_LETTER_PUBLIC_KEYSET_FILE": Sealer.load,
    "DEAD_LETTER_PRIVATE_KEYSET_FILE": Opener.load,
}
TEXTS = {
    "MASKING_KEYSET_FILE": keysets.secret_text(masking_handle()),
    "MASKING_HMAC_KEYSET_FILE": keysets.secret_text(hmac_handle()),
    "DEAD_LETTER_PUBLIC_KEYSET_FILE": keysets.public_text(dead_letter_handle()),
    "DEAD_LETTER_PRIVATE_KEYSET_FILE": keysets.secret_text(dead_letter_handle()),
}
every_setting = pytest.mark.parametrize("setting", LOADERS)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@every_setting
def test_a_keyset_is_read_from_its_file(setting: str, tmp_path: Path) -> None:
    assert LOADERS[setting](write(tmp_path / setting, TEXTS[setting])) is not None


@every_setting
def test_a_start_without_the_setting_is_refused_and_told_how(setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{setting}: not set; .*`faust -A stream_app keys create --directory DIR`"):
        LOADERS[setting](None)


@every_setting
def test_a_missing_file_is_refused_and_told_how(setting: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"^{setting}: the file it names does not exist; `faust -A stream_app keys create"):
        LOADERS[setting](tmp_path / "absent")


@every_setting
@pytest.mark.parametrize("content", ["", "{}", "[]", "hello", '{"primaryKeyId": 1, "key": []}', "cut off", "changed"])
def test_a_malformed_keyset_is_refused_without_its_content(setting: str, content: str, tmp_path: Path) -> None:
    text = TEXTS[setting]
    content = {"cut off": text[:-20], "changed": text.replace('"value": "', '"value": "AAAA')}.get(content, content)

    with pytest.raises(SettingsError, match=f"^{setting}: the file it names is ") as caught:
        LOADERS[setting](write(tmp_path / "keyset", content))
    shown = repr(caught.value) + repr(caught.value.__cause__) + str(caught.value.__suppress_context__)
    assert "hello" not in shown
    assert shown.endswith("NoneTrue")


@every_setting
def test_another_kind_of_keyset_is_refused(setting: str, tmp_path: Path) -> None:
    aead.register()
    others = [text for name, text in TEXTS.items() if name != setting]
    others.append(keysets.secret_text(tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)))

    for number, other in enumerate(others):
        with pytest.raises(SettingsError, match=f"^{setting}: the file it names is (a keyset of another kind|no public|no Tink)"):
            LOADERS[setting](write(tmp_path / str(number), other))


def test_the_worker_is_not_given_the_private_keyset_of_dead_letters(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^DEAD_LETTER_PUBLIC_KEYSET_FILE: .*a private one stays with the operator"):
        Sealer.load(write(tmp_path / "private", keysets.secret_text(dead_letter_handle())))


@every_setting
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o777])
def test_a_secret_that_others_can_read_or_write_is_refused(setting: str, mode: int, tmp_path: Path) -> None:
    path = write(tmp_path / "keyset", TEXTS[setting], mode)

    if setting == "DEAD_LETTER_PUBLIC_KEYSET_FILE":
        assert LOADERS[setting](path) is not None
        return
    with pytest.raises(SettingsError, match=f"^{setting}: the file it names is open to other users of this machine; chmod 600 it$"):
        LOADERS[setting](path)


@every_setting
def test_what_is_no_readable_file_is_refused(setting: str, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    huge = write(tmp_path / "huge", " " * (SECRET_BYTES_MAX + 1))

    for path, problem in (
        (tmp_path, "IsADirectoryError"),
        (binary, "UnicodeDecodeError"),
        (huge, "too large"),
        (binary / "x", "NotADirect"),
    ):
        with pytest.raises(SettingsError, match=f"^{setting}: .*{problem}"):
            LOADERS[setting](path)


def test_methods_without_a_secret_need_no_keyset() -> None:
    assert Masker.load(parse_methods("ip=truncate,device_id=redact"), keyset_file=None).mask("device_id", [b"x"]) == ["\x02"]


def test_a_file_of_somebody_else_is_theirs_to_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "mounted", TEXTS["MASKING_KEYSET_FILE"], 0o640)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    assert load_aes_siv_only(path) is not None
