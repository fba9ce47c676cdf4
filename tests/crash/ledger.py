"""What was sent, kept outside of the pipeline: by message id, each field and the ending that it must come to."""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from crash.messages import Columns, Ending, Message

_SCHEMA = """
CREATE TABLE sent (
    message_id TEXT PRIMARY KEY, queue TEXT, message_group TEXT, number INTEGER, sent_after REAL, sent_before REAL,
    ending TEXT, body_sha256 BLOB, raw_ip TEXT, raw_device_id TEXT,
    user_id TEXT, device_type TEXT, ip TEXT, device_id TEXT, locale TEXT, app_version INTEGER, reason TEXT, field TEXT,
    rows INTEGER DEFAULT 0, dead_letters INTEGER DEFAULT 0, queue_dead_letters INTEGER DEFAULT 0, records INTEGER DEFAULT 0
) WITHOUT ROWID
"""
_COLUMNS = (
    "message_id, queue, message_group, number, sent_after, sent_before, ending, body_sha256, raw_ip, raw_device_id,"
    " user_id, device_type, ip, device_id, locale, app_version, reason, field"
)
SIDES = ("rows", "dead_letters", "queue_dead_letters", "records")
"""Where a message may be found; ``records``: in the topic."""


def sha256(body: bytes) -> bytes:
    """The fingerprint of a body."""
    return hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that was sent."""

    message_id: str
    queue: str
    group: str | None
    """The message group in a FIFO queue."""
    number: int
    """Its place in the order of sending, by queue."""
    sent_after: float
    """Seconds since the epoch: SQS's time of sending lies between these two."""
    sent_before: float
    ending: Ending
    body_sha256: bytes
    columns: Columns | None
    reason: str | None
    field: str | None


class Ledger:
    """In a SQLite file, so that a long run does not fill memory. Used from several threads."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, check_same_thread=False)
        self._lock = threading.Lock()
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _SCHEMA):
            self._database.execute(statement)
        self.sent = 0

    def close(self) -> None:
        self._database.close()

    def add(self, sent: Sequence[tuple[str, Message, int, str | None]], queue: str, sent_after: float, sent_before: float) -> None:
        """Note messages that the queue has accepted: message id, message, number, group."""
        rows = [
            (
                message_id, queue, group, number, sent_after, sent_before,
                message.ending.value, sha256(message.value), *message.raw_values,
                *(astuple(message.columns) if message.columns is not None else (None,) * 6), message.reason, message.field,
            )
            for message_id, message, number, group in sent
        ]  # fmt: skip
        with self._lock:
            self._database.executemany(f"INSERT INTO sent ({_COLUMNS}) VALUES ({', '.join('?' * 18)})", rows)  # noqa: S608 - our own names
            self.sent += len(rows)

    def find(self, message_id: str) -> Entry | None:
        """What was sent under this id."""
        with self._lock:
            row = self._database.execute(f"SELECT {_COLUMNS} FROM sent WHERE message_id = ?", [message_id]).fetchone()  # noqa: S608
        if row is None:
            return None
        columns = None if row[15] is None else Columns(*row[10:16])
        return Entry(row[0], row[1], row[2], row[3], row[4], row[5], Ending(row[6]), row[7], columns, row[16], row[17])

    def count(self, side: str, message_id: str) -> int:
        """Note that the message was found on this side; how often it was by now."""
        with self._lock:
            statement = f"UPDATE sent SET {side} = {side} + 1 WHERE message_id = ? RETURNING {side}"  # noqa: S608
            return int(self._database.execute(statement, [message_id]).fetchone()[0])

    def forget_counts(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._database.execute(f"UPDATE sent SET {', '.join(f'{side} = 0' for side in SIDES)}")  # noqa: S608

    def total(self, condition: str) -> int:
        """How many messages there are of which this SQL condition holds."""
        with self._lock:
            return int(self._database.execute(f"SELECT count(*) FROM sent WHERE {condition}").fetchone()[0])  # noqa: S608

    def ids(self, condition: str, most: int) -> list[str]:
        """Some of them, in the order sent."""
        with self._lock:
            found = self._database.execute(f"SELECT message_id FROM sent WHERE {condition} ORDER BY sent_after LIMIT {most}")  # noqa: S608
            return [message_id for (message_id,) in found]

    def raw_values(self, candidates: set[str]) -> Iterator[str]:
        """Those of the candidates that were sent as IP address or device id."""
        with self._lock:
            self._database.execute("CREATE INDEX IF NOT EXISTS by_raw_ip ON sent (raw_ip)")
            self._database.execute("CREATE INDEX IF NOT EXISTS by_raw_device_id ON sent (raw_device_id)")
            for candidate in candidates:
                found = "SELECT 1 FROM sent WHERE raw_ip = ?1 UNION ALL SELECT 1 FROM sent WHERE raw_device_id = ?1 LIMIT 1"
                if self._database.execute(found, [candidate]).fetchone():
                    yield candidate
