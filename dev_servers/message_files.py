"""Message bodies from a file: a JSON array or JSON lines, plain or gzip."""

import gzip
import json
import zlib
from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"
JSON_SPACE = " \t\r\n"


class MessageFileError(Exception):
    """The file can't be read as messages; says where, never with its content."""


def read_bodies(file: Path) -> list[str]:
    """One body for each element of the array or each line, as it is written there: white space, key order and numbers stay.

    Raises :class:`MessageFileError`.
    """
    try:
        content = file.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise MessageFileError(f"{file}: can't be read ({error})") from error
    except UnicodeDecodeError as error:
        raise MessageFileError(f"{file}: not UTF-8 text at byte {error.start}") from None
    stripped = text.strip(JSON_SPACE)
    bodies = _array_elements(stripped) if stripped.startswith("[") else None
    if bodies is None:
        bodies = [stripped] if _end_of_value(stripped, 0) == len(stripped) else _lines(file, text)
    if not bodies:
        raise MessageFileError(f"{file}: there is no message in it")
    return bodies


def _array_elements(text: str) -> list[str] | None:
    """The text of each element, or ``None`` if the text is not exactly one array."""
    elements: list[str] = []
    at = _skip_space(text, 1)
    if text[at:] == "]":
        return elements
    while True:
        end = _end_of_value(text, at)
        if end is None:
            return None
        elements.append(text[at:end])
        at = _skip_space(text, end)
        if text[at:] == "]":
            return elements
        if text[at : at + 1] != ",":
            return None
        at = _skip_space(text, at + 1)


def _lines(file: Path, text: str) -> list[str]:
    bodies: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        body = line.strip(JSON_SPACE)
        if not body:
            continue
        if _end_of_value(body, 0) != len(body):
            raise MessageFileError(f"{file}: neither a JSON array nor JSON lines: line {number} is not a JSON value")
        bodies.append(body)
    return bodies


_raw_decode = json.JSONDecoder(strict=False).raw_decode


def _end_of_value(text: str, at: int) -> int | None:
    """Where the JSON value that starts at ``at`` ends."""
    try:
        return _raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return None


def _skip_space(text: str, at: int) -> int:
    while text[at : at + 1] in JSON_SPACE and at < len(text):
        at += 1
    return at
