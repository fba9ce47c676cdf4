"""What every Python peer of the worker makes of a record: one row, both personal fields masked with Tink's AES-SIV, a call each.

As a good engineer would write it for one service, and less than ours: nothing is checked but that it parses, an IP address is
masked as its text, a short device id has a short token, and a record that can't become a row ends the process.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tink import daead, json_proto_keyset_format, secret_key_access

Row = tuple[str, str, str, str, str | None, int, date, datetime, str]

COLUMNS = (
    "user_id",
    "device_type",
    "masked_ip",
    "masked_device_id",
    "locale",
    "app_version",
    "create_date",
    "sent_at",
    "message_id",
)
INSERT = f"INSERT INTO user_logins ({', '.join(COLUMNS)}) VALUES %s ON CONFLICT (sent_at, message_id) DO NOTHING"  # noqa: S608


class LoginRows:
    """Makes rows with the keyset in a file."""

    def __init__(self, keyset_file: Path) -> None:
        daead.register()
        keyset = json_proto_keyset_format.parse(keyset_file.read_text(), secret_key_access.TOKEN)
        self._encrypt = keyset.primitive(daead.DeterministicAead).encrypt_deterministically

    def row(self, login: Mapping[str, Any], headers: Mapping[str, bytes]) -> Row:
        """In the order of ``COLUMNS``."""
        sent_at = datetime.fromtimestamp(int(headers["sent-at"]) / 1000, UTC)
        return (
            login["user_id"],
            login["device_type"],
            self._masked(login["ip"], b"ip"),
            self._masked(login["device_id"], b"device_id"),
            login["locale"],
            version_number(login["app_version"]),
            sent_at.date(),
            sent_at,
            headers["message-id"].decode(),
        )

    def _masked(self, value: str, field: bytes) -> str:
        return urlsafe_b64encode(self._encrypt(value.encode(), field)).rstrip(b"=").decode()


def version_number(text: str) -> int:
    """2.3 and 2.3.0 are 2003000."""
    major, minor, patch = (int(part) for part in f"{text}.0.0".split(".")[:3])
    return major * 1_000_000 + minor * 1_000 + patch
