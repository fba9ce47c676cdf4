"""The judge: compares what was sent with all that is left after a run, on every side.

Promise: a message that is missing, there twice, changed, in the wrong place or in the clear does not pass. It asks the servers
themselves and opens each token; of the product it uses only the masking, to open. How it could break: comparing with something that
the pipeline told. So what was sent is known from the ledger alone, and the cleaned form from ``messages.py``.
"""

import re
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg2
from confluent_kafka import Consumer, KafkaException, TopicPartition

from crash.ledger import Entry, Ledger, sha256
from crash.messages import Columns, Ending
from crash.workload import Queue
from pipeline.contract import HEADER_MESSAGE_ID
from pipeline.errors import FatalError
from stream_app.dead_letters import Opener, OriginalRecord, Sealed
from stream_app.masking.masker import Masker

RAW_VALUE = re.compile(rb"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])|(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)|(?i:2001:0?db8:[0-9a-f:]+)")
"""What an IP address or a device id of the made-up logins looks like, an IPv6 address also in its long form."""

UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
RECORDS_WITHOUT_ID = UUID("8d7a2f57-6f0c-5d0e-9c55-0c0f1b8e64b1")
"""The namespace of the ids of records that came without one: written down here again, since it may never change."""

EXAMPLES_MAX = 5
KAFKA_SECONDS = 10.0
FETCH_ROWS = 2_000
FETCH_AHEAD_KIBIBYTES = 4_096
"""Of records. With the 65,536 of librdkafka a soak's own process grew by 150 MiB with each check."""

UNPACKED_BYTES_MAX = 1_000_000_000
"""Of a record batch: librdkafka reads none that unpacks to more than this setting says. Faults send half as much."""

_ROWS = """
SELECT message_id::text, extract(epoch FROM sent_at)::float8, create_date = (sent_at AT TIME ZONE 'UTC')::date,
       extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8,
       user_id, device_type, masked_ip, masked_device_id, locale, app_version
FROM user_logins"""
_DEAD_LETTERS = """
SELECT message_id::text, extract(epoch FROM sent_at)::float8, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8,
       consumer_group, topic, partition, record_offset, reason, field, sealed
FROM dead_letters
WHERE replay_ended IS DISTINCT FROM 'row'"""


@dataclass(frozen=True, slots=True)
class Sides:
    """Where to look."""

    ledger: Ledger
    queues: Sequence[Queue]
    bootstrap_servers: str
    topic: str
    consumer_group: str
    dsn: str
    masker: Masker
    opener: Opener
    written_files: Sequence[tuple[Path, int]] = ()
    """Logs and metrics, each with the byte from which on this run wrote it."""
    partitions_added: bool = False
    """While records were written: a key may then be in another partition than before."""


def _count(help_: str) -> int:
    return field(default=0, metadata={"fault": help_})


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found. Every field made by ``_count`` counts something that must not be."""

    sent: int = 0
    rows: int = 0
    dead_letters: int = 0
    queue_dead_letters: int = 0
    records: int = 0
    """In the topic; more than sent where messages were forwarded twice, which is allowed."""
    lost: int = _count("messages that are nowhere")
    doubled: int = _count("messages that are there more than once, as rows or dead letters")
    unknown: int = _count("rows or dead letters that nobody sent")
    misplaced: int = _count("messages with another ending than theirs")
    altered: int = _count("rows, dead letters or records that are not what was sent")
    unopened: int = _count("tokens or sealed records that do not open")
    positions_off: int = _count("partitions whose position is not the log's end")
    commits_off: int = _count("partitions whose offset in Kafka is not the position")
    left_in_queue: int = _count("messages still in the queue")
    out_of_order: int = _count("records of a message group out of order")
    scattered: int = _count("partitions beyond one in which a message group is")
    raw_values: int = _count("raw values in logs, metrics or tables")
    recoveries_seconds: list[float] = field(default_factory=list)
    """For each fault: from its end until all that was sent before that was in Postgres."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Of what must not be, some; never a value."""

    @property
    def problems(self) -> dict[str, int]:
        """What must not be and is there, by field."""
        counted = (each.name for each in fields(self) if "fault" in each.metadata)
        return {name: getattr(self, name) for name in counted if getattr(self, name)}

    @property
    def redelivered(self) -> int:
        """Records beyond one a message."""
        return max(0, self.records - (self.sent - self.queue_dead_letters))

    def found(self, problem: str, example: str, number: int = 1) -> None:
        """Count a problem; its first examples are kept."""
        setattr(self, problem, getattr(self, problem) + number)
        examples = self.examples.setdefault(problem, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(example)

    def __str__(self) -> str:
        """What must not be, in words."""
        words = {each.name: each.metadata["fault"] for each in fields(self) if "fault" in each.metadata}
        lines = [
            f"{number:,} {words[name]}, such as {'; '.join(self.examples.get(name, ()))}" for name, number in self.problems.items()
        ]
        return "\n".join(lines) or "nothing lost, nothing double, nothing unknown"


def check(sides: Sides, *, faults_ended_at: Sequence[float] = ()) -> Verdict:
    """Look at all sides, once everything has come to rest. ``faults_ended_at``: seconds since the epoch, the earliest first."""
    verdict = Verdict(sent=sides.ledger.sent)
    sides.ledger.forget_counts()
    committed = _Committed(faults_ended_at)
    with closing(psycopg2.connect(sides.dsn)) as connection:
        _check_rows(sides, connection, verdict, committed)
        _check_dead_letters(sides, connection, verdict, committed)
        positions = _positions(sides, connection)
    _check_queues(sides, verdict)
    # The ends also of what an open transaction hides: records behind it are no less missing.
    with closing(Consumer({**_consumer_settings(sides), "isolation.level": "read_uncommitted"})) as consumer:
        log_ends = _log_ends(consumer, sides.topic)
    with closing(Consumer(_consumer_settings(sides))) as consumer:
        _check_positions(sides, consumer, positions, log_ends, verdict)
        _check_records(sides, consumer, log_ends, verdict)
    _check_endings(sides.ledger, verdict)
    _check_files(sides, verdict)
    verdict.recoveries_seconds = committed.recoveries_seconds
    return verdict


class _Committed:
    """When, after each fault's end, the last message was committed that was sent before it."""

    def __init__(self, faults_ended_at: Sequence[float]) -> None:
        self._ends = faults_ended_at
        self.recoveries_seconds = [0.0] * len(faults_ended_at)

    def saw(self, sent_at: float, committed_at: float) -> None:
        for index in range(bisect_right(self._ends, sent_at), bisect_left(self._ends, committed_at)):
            self.recoveries_seconds[index] = max(self.recoveries_seconds[index], committed_at - self._ends[index])


def _select(connection: Any, statement: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("all_of_them") as cursor:  # a named cursor: the server keeps what does not fit here
        cursor.itersize = FETCH_ROWS
        cursor.execute(statement)
        yield from cursor


def _entry(sides: Sides, side: str, message_id: str, verdict: Verdict) -> Entry | None:
    """The message that was found, counted; None if nobody sent it."""
    entry = sides.ledger.find(message_id)
    if entry is None:
        verdict.found("unknown", f"{message_id} in {side}")
    else:
        sides.ledger.count(side, message_id)
    return entry


def _was_sent_at(entry: Entry, sent_at: float) -> bool:
    """Whether the time of sending is the queue's own. It counts whole milliseconds."""
    return int(entry.sent_after * 1_000) <= round(sent_at * 1_000) <= entry.sent_before * 1_000


def _check_rows(sides: Sides, connection: Any, verdict: Verdict, committed: _Committed) -> None:
    for message_id, sent_at, date_fits, committed_at, *columns in _select(connection, _ROWS):
        verdict.rows += 1
        entry = _entry(sides, "rows", message_id, verdict)
        if entry is None:
            continue
        committed.saw(sent_at, committed_at)
        user_id, device_type, masked_ip, masked_device_id, locale, app_version = columns
        try:
            ip, device_id = sides.masker.reveal("ip", masked_ip), sides.masker.reveal("device_id", masked_device_id)
        except FatalError as error:
            verdict.found("unopened", f"the row of {message_id}: {error}")
            continue
        if entry.columns is not None and not (
            entry.columns == Columns(user_id, device_type, ip, device_id, locale, app_version)
            and date_fits
            and _was_sent_at(entry, sent_at)
        ):
            verdict.found("altered", f"the row of {message_id}")


def _check_dead_letters(sides: Sides, connection: Any, verdict: Verdict, committed: _Committed) -> None:
    for message_id, sent_at, committed_at, group, topic, partition, offset, reason, field_, sealed in _select(
        connection, _DEAD_LETTERS
    ):
        verdict.dead_letters += 1
        entry = _entry(sides, "dead_letters", message_id, verdict)
        if entry is None:
            continue
        committed.saw(sent_at, committed_at)
        try:
            original = sides.opener.open(bytes(sealed), topic=topic, partition=partition, offset=offset)
        except FatalError as error:
            verdict.found("unopened", f"the dead letter of {message_id}: {error}")
            continue
        if (
            (group, topic) != (sides.consumer_group, sides.topic)
            or _body_sha256(original) != entry.body_sha256
            or (entry.ending is Ending.DEAD_LETTER and (reason, field_) != (entry.reason, entry.field))
            or not _was_sent_at(entry, sent_at)
        ):
            verdict.found("altered", f"the dead letter of {message_id}")


def _body_sha256(original: Sealed) -> bytes | None:
    """Of the body that was sealed, or that is told of one which was too large for it."""
    if isinstance(original, OriginalRecord):
        return sha256(original.value or b"")
    return None if original.value is None else original.value.sha256


def _check_queues(sides: Sides, verdict: Verdict) -> None:
    for queue in sides.queues:
        visible, hidden = queue.counts()
        if visible or hidden:
            verdict.found("left_in_queue", f"{visible} visible and {hidden} hidden in {queue.name}", visible + hidden)
        for message_id in queue.dead_letters():
            verdict.queue_dead_letters += 1
            _entry(sides, "queue_dead_letters", message_id, verdict)


def _consumer_settings(sides: Sides) -> dict[str, Any]:
    return {
        "bootstrap.servers": sides.bootstrap_servers,
        "group.id": sides.consumer_group,  # to ask for its offsets; it never joins and never commits
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": FETCH_AHEAD_KIBIBYTES,
        "receive.message.max.bytes": UNPACKED_BYTES_MAX,
    }


def _positions(sides: Sides, connection: Any) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition, next_offset FROM stream_positions WHERE consumer_group = %s AND topic = %s",
            [sides.consumer_group, sides.topic],
        )
        return dict(cursor.fetchall())


def _log_ends(consumer: Consumer, topic: str) -> dict[int, int]:
    partitions = consumer.list_topics(topic, timeout=KAFKA_SECONDS).topics[topic].partitions
    return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=KAFKA_SECONDS)[1] for p in partitions}


def _check_positions(
    sides: Sides, consumer: Consumer, positions: Mapping[int, int], log_ends: Mapping[int, int], verdict: Verdict
) -> None:
    asked = [TopicPartition(sides.topic, partition) for partition in log_ends]
    commits = {each.partition: max(each.offset, 0) for each in consumer.committed(asked, timeout=KAFKA_SECONDS)}
    for partition in sorted({*log_ends, *positions}):
        position, log_end = positions.get(partition), log_ends.get(partition)
        if position != log_end:
            verdict.found("positions_off", f"partition {partition}: position {position}, log end {log_end}")
        if commits.get(partition) != position:
            verdict.found("commits_off", f"partition {partition}: committed {commits.get(partition)}, position {position}")


def _check_records(sides: Sides, consumer: Consumer, log_ends: Mapping[int, int], verdict: Verdict) -> None:
    """Each record is what was sent, and those of a message group are in one partition and first appear there in the order sent."""
    last_numbers: dict[tuple[int, str, str], int] = {}
    partitions: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for message in _records(consumer, sides.topic, log_ends):
        verdict.records += 1
        message_id = message_id_of(message.headers() or (), message.topic(), message.partition(), message.offset())
        entry = sides.ledger.find(message_id)
        if entry is None:
            verdict.found("unknown", f"{message_id} in the topic")
            continue
        if sha256(message.value() or b"") != entry.body_sha256:
            verdict.found("altered", f"the record of {message_id}")
        again = sides.ledger.count("records", message_id) > 1
        if entry.group is None:
            continue
        if (message.key() or b"").decode() != entry.group:
            verdict.found("altered", f"the key of {message_id}")
        partitions[entry.queue, entry.group].add(message.partition())
        if again:
            continue
        group = (message.partition(), entry.queue, entry.group)
        if entry.number < last_numbers.get(group, -1):
            verdict.found("out_of_order", f"{message_id} of {entry.group} at offset {message.offset()}")
        last_numbers[group] = entry.number
    for (queue, name), found in partitions.items():
        if len(found) > 1 and not sides.partitions_added:
            verdict.found("scattered", f"{name} of {queue} in partitions {sorted(found)}", len(found) - 1)


def message_id_of(headers: Iterable[tuple[str, Any]], topic: str, partition: int, offset: int) -> str:
    """The first header's, if it is a UUID; else what the record's place makes, as docs/delivery.md has it for other producers."""
    text = next((value or b"" for name, value in headers if name == HEADER_MESSAGE_ID), b"").decode(errors="replace")
    return text.lower() if UUID_TEXT.fullmatch(text) else str(uuid5(RECORDS_WITHOUT_ID, f"{topic}/{partition}/{offset}"))


def _records(consumer: Consumer, topic: str, log_ends: Mapping[int, int]) -> Iterator[Any]:
    """All records of the topic, of each partition in order."""
    starts = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=KAFKA_SECONDS)[0] for p in log_ends}
    unread = {p for p, end in log_ends.items() if starts[p] < end}
    consumer.assign([TopicPartition(topic, p, starts[p]) for p in unread])
    silent_since = time.monotonic()
    while unread:
        for message in consumer.consume(FETCH_ROWS, timeout=0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            silent_since = time.monotonic()
            yield message
        for partition in list(unread):
            (place,) = consumer.position([TopicPartition(topic, partition)])
            if place.offset >= log_ends[partition]:
                unread.discard(partition)
        if time.monotonic() - silent_since > KAFKA_SECONDS:
            raise TimeoutError(f"the rest of {topic} could not be read: partitions {sorted(unread)}")


def _check_endings(ledger: Ledger, verdict: Verdict) -> None:
    """Each message is in one place, and in the right one."""
    conditions = {
        "lost": "rows + dead_letters + queue_dead_letters = 0",
        "doubled": "rows + dead_letters + queue_dead_letters > 1",
        "misplaced": (
            f"(rows > 0 AND ending <> '{Ending.ROW}') OR (dead_letters > 0 AND ending <> '{Ending.DEAD_LETTER}')"
            f" OR (queue_dead_letters > 0 AND ending <> '{Ending.QUEUE_DEAD_LETTER.replace(chr(39), chr(39) * 2)}')"
        ),
    }
    for problem, condition in conditions.items():
        for message_id in ledger.ids(condition, EXAMPLES_MAX):
            verdict.found(problem, message_id, 0)
        setattr(verdict, problem, ledger.total(condition))


def _as_sent(candidate: str) -> str:
    """An IPv6 address as the ledger has it."""
    try:
        return str(IPv6Address(candidate))
    except AddressValueError:
        return candidate


def _check_files(sides: Sides, verdict: Verdict) -> None:
    for path, start in sides.written_files:
        with path.open("rb") as file:
            file.seek(start)
            candidates = {_as_sent(match.decode()) for match in RAW_VALUE.findall(file.read())}
        for _ in sides.ledger.raw_values(candidates):
            verdict.found("raw_values", path.name)
