"""Clients that Kafka once told of no node, as while all its nodes are fenced: librdkafka's own never find one again (#5301)."""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from integration.running_bridge import Queue, Topic, wait_for
from login_records import SENT_AT_BOUNDS
from metadata_proxy import MetadataProxy, deafen

import bridges.bridge
from bridges.bridge import Bridge
from bridges.kafka_producer import KafkaProducer
from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from bridges.sqs_queue import SqsQueue
from dev_servers.elasticmq import MADE_UP_CREDENTIALS, ElasticMq
from dev_servers.kafka import Kafka
from dev_servers.ports import free_port
from pipeline.errors import RetryableError
from pipeline.kafka_topic import TopicId
from pipeline.settings import KafkaSettings, load
from stream_app.monitor.topic_log import LogRange, TopicLog
from stream_app.open_transaction import LogEnd
from stream_app.transport.first_records import FirstRecords

RENEWALS = 20


@pytest.fixture(scope="module")
def kafka(servers_directory: Path) -> Iterator[Kafka]:
    """One whose clients stay behind the proxy."""
    with Kafka(servers_directory / "kafka-fenced", proxy_port=free_port()) as server:
        yield server


@pytest.fixture
def proxy(kafka: Kafka) -> Iterator[MetadataProxy]:
    assert kafka.proxy_port is not None
    with MetadataProxy(kafka.port_behind_proxy, kafka.proxy_port) as running:
        yield running


@pytest.fixture
def topic(kafka: Kafka) -> Topic:
    return Topic(kafka.bootstrap_servers)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Python switches threads far more often than it does by itself: what can come between two steps does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


class Outcomes:
    """Each message's outcomes, of a producer that is polled here."""

    def __init__(self, bootstrap_servers: str, topic: str, produce_timeout_seconds: float = 30) -> None:
        self.by_id: dict[str, list[str]] = {}
        self._numbers = count()
        self.producer = KafkaProducer(
            BridgeSettings(sqs_queue_url="http://127.0.0.1/1/q", kafka_bootstrap_servers=bootstrap_servers, kafka_topic=topic),
            produce_timeout_seconds,
            on_failed=self._note,
            on_refused=lambda message, code: self._note(message, f"refused: {code}"),
            on_suspicion=lambda: None,
        )

    def _note(self, message: Message, outcome: str) -> None:
        self.by_id[message.message_id].append(outcome)

    def produce(self, number: int) -> list[str]:
        ids = [str(next(self._numbers)) for _ in range(number)]
        self.by_id |= {message_id: [] for message_id in ids}
        self.producer.produce([Message(message_id, "", b"{}", sent_at="1", group_id="one") for message_id in ids])
        return ids

    def poll(self) -> bool:
        """Whether nothing waits for an outcome."""
        for message in self.producer.poll(0.02):
            self._note(message, "acknowledged")
        return len(self.producer) == 0 and all(self.by_id.values())


def is_told(topic_id: TopicId) -> bool:
    try:
        return topic_id.read() is not None
    except RetryableError:
        return False


def reaches(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def test_the_topic_s_id_is_told_again_and_threads_that_ask_together_make_one_new_client(proxy: MetadataProxy, topic: Topic) -> None:
    topic_id = TopicId(load(KafkaSettings, kafka_bootstrap_servers=proxy.bootstrap_servers, kafka_topic=topic.name))
    before = topic_id.read()
    deaf = topic_id._admin

    deafen(proxy, lambda: reaches(deaf))
    answers: list[bool] = []
    asking = [threading.Thread(target=lambda: answers.append(is_told(topic_id))) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert answers == [False] * 4
    assert topic_id._admin is not deaf
    assert topic_id.read() == before


def test_the_monitor_sees_the_topic_again(proxy: MetadataProxy, topic: Topic) -> None:
    settings = load(KafkaSettings, kafka_bootstrap_servers=proxy.bootstrap_servers, kafka_topic=topic.name)
    looking = TopicLog(settings, SENT_AT_BOUNDS, FirstRecords(settings).at)
    outcomes = Outcomes(topic.bootstrap_servers, topic.name)
    outcomes.produce(1)
    wait_for(outcomes.poll, "a record is there")
    (partition,) = [partition for partition, (_, end) in looking.ranges().items() if end.log_end_offset]
    deafen(proxy, lambda: reaches(looking._admin))
    with pytest.raises(RetryableError):
        looking.ranges()
    assert looking.ranges()[partition] == LogRange(0, LogEnd(1, 1))


def test_a_producer_that_is_made_anew_reaches_kafka_and_each_message_has_one_outcome(proxy: MetadataProxy, topic: Topic) -> None:
    outcomes = Outcomes(proxy.bootstrap_servers, topic.name)
    outcomes.produce(10)
    wait_for(outcomes.poll, "it works")
    deafen(proxy, lambda: outcomes.producer.is_reachable(2))
    held = outcomes.produce(10)
    outcomes.poll()
    assert [outcomes.by_id[message_id] for message_id in held] == [[]] * 10
    outcomes.producer.renew()
    wait_for(outcomes.poll, "what it held comes back", 10)
    assert [outcomes.by_id[message_id] for message_id in held] == [["_PURGE_QUEUE"]] * 10
    after = outcomes.produce(10)
    wait_for(outcomes.poll, "and it works again", 10)
    assert [outcomes.by_id[message_id] for message_id in after] == [["acknowledged"]] * 10
    assert {len(each) for each in outcomes.by_id.values()} == {1}
    assert len(topic.records()) == 20


@pytest.mark.usefixtures("quick_switches")
def test_producers_made_anew_while_others_produce_lose_no_message(topic: Topic) -> None:
    """Kafka is there: what is replaced holds records in every state."""
    outcomes = Outcomes(topic.bootstrap_servers, topic.name)
    done = threading.Event()

    def produce() -> None:
        while not done.is_set():
            outcomes.produce(100)
            time.sleep(0.005)  # who polls must keep up with three of these

    producing = [threading.Thread(target=produce) for _ in range(3)]
    for thread in producing:
        thread.start()
    try:
        for _ in range(RENEWALS):
            outcomes.producer.renew()
            for _ in range(5):
                outcomes.poll()
    finally:
        done.set()
        for thread in producing:
            thread.join()
    wait_for(outcomes.poll, "all have an outcome")
    assert {len(each) for each in outcomes.by_id.values()} == {1}
    acknowledged = {message_id for message_id, (outcome,) in outcomes.by_id.items() if outcome == "acknowledged"}
    assert acknowledged
    assert acknowledged <= {record.message_id for record in topic.records()}


def test_a_long_absence_of_kafka_leaves_no_threads_and_no_memory_behind() -> None:
    outcomes = Outcomes("127.0.0.1:1", "none")
    process = psutil.Process(os.getpid())
    threads, memory = [], []
    for _ in range(RENEWALS):
        outcomes.produce(100)
        outcomes.producer.renew()
        wait_for(outcomes.poll, "what was held has failed")
        gc.collect()
        threads.append(process.num_threads())
        memory.append(process.memory_info().rss)
    assert {len(each) for each in outcomes.by_id.values()} == {1}
    assert outcomes.producer._retired == []
    assert max(threads) <= threads[0] + 2
    assert memory[-1] - memory[RENEWALS // 2] < 8 * 1_048_576


def test_the_bridge_forwards_again(
    elasticmq: ElasticMq, proxy: MetadataProxy, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges.bridge, "KAFKA_RENEW_SECONDS", 1.0)
    for name, value in {**MADE_UP_CREDENTIALS, "AWS_ENDPOINT_URL_SQS": elasticmq.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    queue = Queue(elasticmq.endpoint_url)
    settings = BridgeSettings(
        sqs_queue_url=queue.url, kafka_bootstrap_servers=proxy.bootstrap_servers, kafka_topic=topic.name, bridge_receivers=2
    )
    metrics = BridgeMetrics()
    sqs = SqsQueue(queue.url, wait_seconds=1, threads=2, observe=metrics.observe_request)
    bridge = Bridge(settings, sqs, metrics)
    running = threading.Thread(target=bridge.run)
    running.start()
    try:
        ids = queue.send(["{}"] * 10)
        wait_for(queue.is_empty, "it forwards")
        deaf = bridge._forwarding.producer
        assert deaf is not None
        client = deaf._producer

        def reaches_kafka() -> bool:
            assert deaf._producer is client, "made anew before it was seen to be deaf"
            return deaf.is_reachable(0.5)

        deafen(proxy, reaches_kafka)
        ids += queue.send(["{}"] * 50)
        wait_for(queue.is_empty, "it forwards again", 20)
    finally:
        bridge.stop()
        running.join()
        sqs.close()
    assert {record.message_id for record in topic.records()} == set(ids)
