"""Records that unpack to far more than a worker may take."""

import re
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from crash.faults import fault
from crash.faults.data import DRAIN_SECONDS, MEBIBYTE, behind, letters_by_reason, write_backlog
from crash.messages import Ending, Message, good
from crash.run import MEBIBYTES_MAX
from crash.system import System
from crash.topic_producer import Headers, TopicProducer
from dev_servers.made_up_logins import made_up_logins
from pipeline.contract import HEADER_MESSAGE_ID, HEADER_SENT_AT

BOMBS = {"gzip": 128, "lz4": 128, "zstd": 256, "snappy": 20}
"""MiB of zeros, by codec: lz4 packs to a 255th, snappy to a 21st, so no more gets through a topic's ``max.message.bytes``."""

PASSING = 200
"""Bodies of zeros that are just not too large, as many in one batch as a producer takes."""

FULL_OF_HEADERS = 5
HEADERS_OF_EACH = 90_000
"""librdkafka, with which the checker reads, takes no more than 100,000."""
NEIGHBOURS = 200
REASON = "record_too_large"
PRODUCE_SECONDS = 120.0
"""Producer and broker go through it, too, and the broker through each batch once more."""

PRODUCER_BYTES_MAX = 1_000_000_000


def _zeros(mebibytes: int, reason: str) -> Message:
    return Message("", Ending.DEAD_LETTER, ("", ""), reason=reason, other_value=bytes(mebibytes * MEBIBYTE))


def _producer(system: System, codec: str) -> TopicProducer:
    return TopicProducer(
        system,
        {
            "compression.type": codec,
            "message.max.bytes": PRODUCER_BYTES_MAX,
            "batch.size": 64 * MEBIBYTE,
            "queue.buffering.max.kbytes": 2_000_000,
        },
        answer_seconds=PRODUCE_SECONDS,
    )


def _peak_mebibytes(system: System, worker: str) -> float:
    """What the kernel has seen, between any two looks of ours."""
    status = Path(f"/proc/{system.processes.running[worker].pid}/status").read_text()
    return int(cast("re.Match[str]", re.search(r"VmHWM:\s+(\d+) kB", status))[1]) / 1_024


def _send_bombs(system: System, logins: Iterator[Message]) -> None:
    """Into one partition, logins between all of them."""
    for codec, mebibytes in BOMBS.items():
        bomb = _zeros(mebibytes, REASON)
        _producer(system, codec).send([*islice(logins, NEIGHBOURS), bomb, *islice(logins, NEIGHBOURS)], 0)
    producer = _producer(system, "zstd")
    for _ in range(FULL_OF_HEADERS):
        sent_at_ms = time.time_ns() // 1_000_000
        headers: Headers = [(HEADER_MESSAGE_ID, producer.new_id().encode()), (HEADER_SENT_AT, str(sent_at_ms).encode())]
        producer.send_strange(next(logins), [*headers, *[("h", None)] * HEADERS_OF_EACH], sent_at_ms)


def _send_passing(system: System, logins: Iterator[Message]) -> None:
    passing = [_zeros(1, "not_json")] * PASSING
    _producer(system, "zstd").send([*islice(logins, NEIGHBOURS), *passing, *islice(logins, NEIGHBOURS)], 0)


@fault(
    "decompression-bombs",
    "A record that unpacks to more than 1 MiB and 64 KiB is one dead letter with its size and digest, whatever it was packed by;"
    " its neighbours pass, and memory stays within its bound.",
    recovery_seconds=90,
)
def decompression_bombs(system: System) -> Iterator[str]:
    """Zeros by every codec between logins of the same partition; then many that are just not too large, from a full topic."""
    logins = (good(login) for login in made_up_logins(10_000, system.chance.getrandbits(32)))
    system.moment()
    _send_bombs(system, logins)
    ends = system.log_ends()
    system.wait("they are written", lambda: not behind(system, ends), DRAIN_SECONDS)
    system.prove("each is a dead letter", lambda: letters_by_reason(system).get(REASON, 0) == len(BOMBS))
    peaks = [_peak_mebibytes(system, worker) for worker in system.workers]
    write_backlog(system, lambda: _send_passing(system, logins))
    peaks += [_peak_mebibytes(system, worker) for worker in system.workers]
    zeros = f"{sum(BOMBS.values()):,} MiB of zeros in {len(BOMBS)} records, then {PASSING} of 1 MiB"
    yield f"{zeros}; at most {max(peaks):.0f} MiB in a worker"
    assert max(peaks) < MEBIBYTES_MAX["worker"], "a worker took more memory than it may"
    assert not any("partition_stopped" in system.log(worker) for worker in system.workers)
