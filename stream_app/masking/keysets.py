"""Keysets in files: Tink's JSON form, each readable by its owner only, made by ``faust -A stream_app keys create``.

A keyset that is missing, unreadable, malformed, of another kind or open to others stops the start: there is no default key, and
nothing is ever written unmasked for want of one. Errors name the setting, never what the file holds.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tink
from tink import KeysetHandle, TinkError, daead, hybrid, json_proto_keyset_format, prf, secret_key_access

from pipeline.errors import SettingsError
from pipeline.secret_files import read_file

SETTING_MASKING = "MASKING_KEYSET_FILE"
SETTING_MASKING_HMAC = "MASKING_HMAC_KEYSET_FILE"
SETTING_DEAD_LETTER_PUBLIC = "DEAD_LETTER_PUBLIC_KEYSET_FILE"
SETTING_DEAD_LETTER_PRIVATE = "DEAD_LETTER_PRIVATE_KEYSET_FILE"

_CREATE = "`faust -A stream_app keys create --directory DIR` makes one"

daead.register()
prf.register()
hybrid.register()

MASKING_TEMPLATE = daead.deterministic_aead_key_templates.AES256_SIV
MASKING_HMAC_TEMPLATE = prf.prf_key_templates.HMAC_SHA256
DEAD_LETTER_TEMPLATE = hybrid.hybrid_key_templates.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM


@dataclass(frozen=True, slots=True)
class MaskingKeyset:
    """The keyset for ``aes-siv``."""

    aead: daead.DeterministicAead
    key_ids: frozenset[int]
    """Tells a token of a key that is not here from one that was changed."""
    primary_id: int
    """Of the key that masks; the others are there to reveal."""

    def encryption(self) -> tuple[bytes, Callable[[bytes, bytes], bytes]]:
        """What ``aead.encrypt_deterministically`` puts before each of its outputs, and what makes the rest of it.

        It is Tink's own C++ function, without the two Python functions around it: they take more time than it does (0.5 of 0.9 us).
        Read against tink 1.16.1 (``daead/_deterministic_aead_wrapper.py``), which is pinned.
        """
        primary = self.aead._primitive_set.primary()  # noqa: SLF001 - see above
        return primary.identifier, primary.primitive._deterministic_aead.encrypt_deterministically  # noqa: SLF001


def load_masking_keyset(path: Path | None) -> MaskingKeyset:
    """The keyset for ``aes-siv``. Raises :class:`SettingsError` like all functions here."""
    handle = _read_secret(path, SETTING_MASKING)
    aead = _primitive(handle, daead.DeterministicAead, SETTING_MASKING, "AES-SIV keys")
    info = handle.keyset_info()
    return MaskingKeyset(aead, frozenset(key.key_id for key in info.key_info), info.primary_key_id)


def load_masking_hmac_keyset(path: Path | None) -> prf.PrfSet:
    """The keyset for ``hmac``."""
    return _primitive(_read_secret(path, SETTING_MASKING_HMAC), prf.PrfSet, SETTING_MASKING_HMAC, "PRF keys")


def load_dead_letter_public_keyset(path: Path | None) -> hybrid.HybridEncrypt:
    """The keyset that seals. One that holds the private keys too is refused: who seals must not be able to open."""
    setting = SETTING_DEAD_LETTER_PUBLIC
    text = _read(path, setting)
    try:
        handle = json_proto_keyset_format.parse_without_secret(text)
    except TinkError:
        raise SettingsError(
            f"{setting}: the file it names is no public Tink keyset in JSON form (a private one stays with the operator); {_CREATE}"
        ) from None
    return _primitive(handle, hybrid.HybridEncrypt, setting, "public hybrid encryption keys")


def dead_letter_public_key_ids(path: Path | None) -> frozenset[int]:
    """The ids of that keyset's keys, each of which stands at the beginning of what it has sealed."""
    handle = json_proto_keyset_format.parse_without_secret(_read(path, SETTING_DEAD_LETTER_PUBLIC))
    return frozenset(key.key_id for key in handle.keyset_info().key_info)


def load_dead_letter_private_keyset(path: Path | None) -> hybrid.HybridDecrypt:
    """The keyset that opens."""
    setting = SETTING_DEAD_LETTER_PRIVATE
    return _primitive(_read_secret(path, setting), hybrid.HybridDecrypt, setting, "private hybrid encryption keys")


def new_secret_keyset(template: Any) -> KeysetHandle:
    """A keyset with one fresh key."""
    return tink.new_keyset_handle(template)


def secret_text(handle: KeysetHandle) -> str:
    """A keyset as it is written to a file, with its secrets."""
    return str(json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)) + "\n"


def public_text(private: KeysetHandle) -> str:
    """The public half of a private keyset as it is written to a file."""
    return str(json_proto_keyset_format.serialize_without_secret(private.public_keyset_handle())) + "\n"


def write_new(texts: dict[Path, str]) -> None:
    """Write new files that only their owner can read: all of them or none; an existing file is never touched.

    They are on the disk when this returns: tokens without their key are lost. Raises FileExistsError and other OSErrors.
    """
    written: list[Path] = []
    try:
        for path, text in texts.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            written.append(path)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    for directory in {path.parent for path in texts}:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _primitive(handle: KeysetHandle, kind: Any, setting: str, expected: str) -> Any:
    try:
        return handle.primitive(kind)
    except TinkError:
        raise SettingsError(f"{setting}: the file it names is a keyset of another kind; expected {expected}; {_CREATE}") from None


def _read_secret(path: Path | None, setting: str) -> KeysetHandle:
    text = _read(path, setting, secret=True)
    try:
        return json_proto_keyset_format.parse(text, secret_key_access.TOKEN)
    except TinkError:
        raise SettingsError(f"{setting}: the file it names is no Tink keyset in JSON form; {_CREATE}") from None


def _read(path: Path | None, setting: str, *, secret: bool = False) -> str:
    if path is None:
        raise SettingsError(f"{setting}: not set; it names a keyset file, {_CREATE}")
    try:
        return read_file(path, setting, secret=secret)
    except FileNotFoundError:
        raise SettingsError(f"{setting}: the file it names does not exist; {_CREATE}") from None
