"""Record batches as bytes: as producers pack them and brokers number them, and as neither of ours would."""

import struct
import time

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from login_records import headers, login

LZ4 = 3
_TIMES_AT = 27
"""Where the times of the first and of the latest record stand in a batch."""


def packed(bodies: list[bytes], first_offset: int = 0, *, producer: int = -1, key: bytes = b"key") -> bytes:
    """One record batch, as a producer packs it and a broker numbers it."""
    batch = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=LZ4 if key == b"key" else 0,  # what a broker writes itself is not packed
        is_transactional=producer >= 0,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1 << 30,
    )
    for place, body in enumerate(bodies):
        batch.append(place, 1_000 + place, key, body, list(headers(first_offset + place)))
    data = batch.build()
    data[:8] = first_offset.to_bytes(8, "big")  # not under the checksum
    return bytes(data)


def aborted(producer: int, first_offset: int) -> bytes:
    """The control batch that takes a producer's transaction back."""
    data = bytearray(packed([b"\0\0\0\0\0\0"], first_offset, producer=producer, key=b"\0\0\0\0"))
    data[21:23] = (int.from_bytes(data[21:23], "big") | 0x20).to_bytes(2, "big")
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def with_a_strange_header(first_offset: int = 0) -> bytes:
    """A batch whose checksum is right: Kafka asks for UTF-8 in the name of a header, and does not look."""
    data = bytearray(packed([login()], first_offset, key=b""))
    data[data.index(b"message-id")] = 0xFF
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


def dated(batch: bytes, timestamp: int) -> bytes:
    """The same records: the first one's time in milliseconds since the epoch, the others as long after it as they were."""
    data = bytearray(batch)
    first, last = struct.unpack_from(">qq", data, _TIMES_AT)
    struct.pack_into(">qq", data, _TIMES_AT, timestamp, timestamp + last - first)
    data[17:21] = calc_crc32c(bytes(data[21:])).to_bytes(4, "big")
    return bytes(data)


async def produce_packed(bootstrap_servers: str, topic: str, partition: int, batch: bytes, *, seconds_ago: int = 0) -> None:
    """Put a record batch on a partition as it is, but for its time: Kafka soon removes what is older than it keeps."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=10_000,
            topics=[(topic, [(partition, dated(batch, int(time.time() - seconds_ago) * 1_000))])],
        )
        answer = await client.send(leader, request)
        ((_, ((_, error, *_),)),) = answer.topics
        assert error == 0, f"the broker answers with error {error}"
    finally:
        await client.close()
