"""What a worker makes of a log that a real Kafka has compacted: by aiokafka's own fetches, as the worker takes them."""

import time
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from fake_log import FakeLog
from login_records import login
from partition_scenes import Scene

from dev_servers.kafka import Kafka
from stream_app.chunk import Chunk
from stream_app.dead_letters import KafkaRecord
from stream_app.transport.consumer_thread import BatchConsumerThread
from stream_app.transport.fetched_records import fetch_whole

TOPIC = "compacts-by-itself"
RECORDS = 40
SEGMENT_MILLISECONDS = 100
WAIT_SECONDS = 60.0


@pytest.fixture
def topic(kafka: Kafka) -> Iterator[str]:
    """Its segments are closed soon and compacted soon after."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    config = {
        "cleanup.policy": "compact",
        "segment.ms": str(SEGMENT_MILLISECONDS),
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": str(SEGMENT_MILLISECONDS),
    }
    admin.create_topics([NewTopic(TOPIC, 1, 1, config=config)])[TOPIC].result()
    yield TOPIC
    admin.delete_topics([TOPIC])[TOPIC].result()


def produce(kafka: Kafka, keys: list[str], *, transactional_id: str | None = None) -> None:
    transactions = {} if transactional_id is None else {"transactional.id": transactional_id}
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, **transactions})
    if transactions:
        producer.init_transactions(WAIT_SECONDS)
        producer.begin_transaction()
    for key in keys:
        producer.produce(TOPIC, login(), key=key.encode(), partition=0)
    if transactions:
        producer.commit_transaction(WAIT_SECONDS)
    assert producer.flush(WAIT_SECONDS) == 0


async def chunks(kafka: Kafka, end: int) -> list[Chunk[KafkaRecord]]:
    """The log up to an offset, as the consumer's thread would hand it over."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False, max_poll_records=None
    )
    await consumer.start()
    try:
        fetch_whole(consumer._fetcher)
        place = TopicPartition(TOPIC, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        thread = BatchConsumerThread.__new__(BatchConsumerThread)
        thread._seek_numbers, thread._next_sequences, thread._empty = {place: 1}, {}, {}
        found: list[Chunk[KafkaRecord]] = []
        while await consumer.position(place) < end:
            for packed in (await consumer.getmany(place, timeout_ms=1_000)).get(place, []):
                numbered = thread._numbered(place, packed)
                found += [] if numbered is None else [numbered]
    finally:
        await consumer.stop()
    return found


async def read_by_a_worker(kafka: Kafka, end: int) -> Scene:
    """A partition writer takes it in and has written it."""
    it = Scene(log=FakeLog())
    found = await chunks(kafka, end)
    async with it.opened() as writer:
        for each in found:
            writer.receive(each)
    return it


async def test_what_compaction_took_is_counted_and_control_records_are_not(kafka: Kafka, topic: str) -> None:
    assert topic == TOPIC
    deadline = time.monotonic() + WAIT_SECONDS
    produce(kafka, [f"first {number}" for number in range(5)], transactional_id="other")
    before = await read_by_a_worker(kafka, 6)
    assert (len(list(before.store.offsets())), before.count("records_compacted_total")) == (5, 0)
    produce(kafka, ["last"])
    whole = await read_by_a_worker(kafka, 7)
    assert len(list(whole.store.offsets())) == 6
    assert (whole.count("offsets_skipped_total"), whole.count("records_compacted_total")) == (1, 0), "a control record alone"

    end = 7
    while time.monotonic() < deadline:  # each record closes the segment before, and the cleaner comes twice a second
        produce(kafka, ["same"] * RECORDS)
        end += RECORDS
        it = await read_by_a_worker(kafka, end)
        missing = end - 1 - len(list(it.store.offsets()))
        assert it.count("records_compacted_total") == missing
        assert it.count("offsets_skipped_total") == missing + 1
        if missing:
            break
    assert missing >= RECORDS // 2
    assert it.count("records_lost_total") == 0
