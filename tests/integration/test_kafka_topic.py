"""The topic on a real Kafka: made once, and told from one of the same name that was made anew."""

import gc
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from dev_servers.kafka import Kafka
from dev_servers.kafka_cluster import KafkaCluster
from dev_servers.server import start_together, stop_together
from pipeline import kafka_topic
from pipeline.errors import FatalError, RetryableError
from pipeline.kafka_topic import TopicId, ensure_topic
from pipeline.settings import KafkaSettings, load


def test_a_topic_made_anew_has_another_id(kafka: Kafka) -> None:
    settings = load(KafkaSettings, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic="made-anew")
    topic_id = TopicId(settings)
    with pytest.raises(RetryableError, match="UNKNOWN_TOPIC_OR_PART"):
        topic_id.read()
    assert ensure_topic(settings)
    until_it_is_known(lambda: not ensure_topic(settings))
    first = read_soon(topic_id)
    assert first is not None
    assert topic_id.read() == first
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics(["made-anew"])["made-anew"].result(10)
    until_it_is_known(lambda: ensure_topic(settings))
    assert read_soon(topic_id) not in (None, first)


def test_a_misspelt_topic_is_not_made_where_it_must_not_be_and_the_near_one_is_named(kafka: Kafka) -> None:
    there = load(KafkaSettings, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic="spelt-right")
    assert ensure_topic(there)
    misspelt = there.model_copy(update={"kafka_topic": "spelt-rihgt", "kafka_topic_create": "never"})
    with pytest.raises(FatalError, match=r"no topic 'spelt-rihgt', .*: correct it \(there is 'spelt-right'\), have the topic made"):
        ensure_topic(misspelt)
    assert "spelt-rihgt" not in AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=10).topics
    assert not ensure_topic(there.model_copy(update={"kafka_topic_create": "never"})), "one that is there is taken"


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_topic_that_compacts_is_refused_unless_it_is_meant(kafka: Kafka, policy: str) -> None:
    name = f"compacts-{policy.count(',')}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, num_partitions=1, config={"cleanup.policy": policy})])[name].result(10)
    settings = load(KafkaSettings, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic=name)
    with pytest.raises(FatalError, match=rf"^KAFKA_TOPIC: '{name}' compacts .*KAFKA_TOPIC_COMPACTED=accept"):
        until_it_is_known(lambda: ensure_topic(settings.model_copy(update={"kafka_topic_create": "never"})))
    with capture_logs() as lines:
        assert not ensure_topic(settings.model_copy(update={"kafka_topic_compacted": "accept"}))
    assert [line["event"] for line in lines] == ["topic_compacts"]


def until_it_is_known(look: Callable[[], bool]) -> None:
    """Brokers hear of a topic that was made or deleted a little later."""
    deadline = time.monotonic() + 20
    while True:
        try:
            if look():
                return
        except (FatalError, RetryableError) as error:
            if "there is no topic" not in str(error) and "don't agree yet" not in str(error):
                raise
        assert time.monotonic() < deadline, "Kafka's nodes agree"


def test_the_id_is_told_although_the_node_that_told_it_is_gone(tmp_path: Path) -> None:
    """Each asks the controller, which is not the same node for all: six, so that the lost node was that of one at least."""
    cluster = KafkaCluster(tmp_path)
    nodes = list(cluster.nodes.values())
    try:
        start_together(nodes)
        settings = load(
            KafkaSettings, kafka_bootstrap_servers=cluster.bootstrap_servers, kafka_topic_replication=3, kafka_topic="replicated"
        )
        with pytest.raises(FatalError, match=r"^KAFKA_TOPIC: there is no topic 'replicated', .*: correct it, .*KAFKA_TOPIC_CREATE"):
            ensure_topic(settings)
        with capture_logs() as lines:
            assert ensure_topic(settings.model_copy(update={"kafka_topic_create": "auto"}))
            once = {"kafka_topic": "not-replicated", "kafka_topic_replication": 1, "kafka_topic_create": "auto"}
            assert ensure_topic(settings.model_copy(update=once))
        assert [(line["event"], line["topic"]) for line in lines] == [("topic_not_replicated", "not-replicated")]
        asking = [TopicId(settings) for _ in range(6)]
        (before,) = {read_soon(topic_id) for topic_id in asking}
        nodes[0].kill()
        assert {read_soon(topic_id) for topic_id in asking} == {before}
    finally:
        stop_together(nodes)


def test_clients_that_reach_no_broker_end_with_the_call_that_replaces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody listens and never answers. Garbage is not collected: it would be on any thread, and ending a client takes long."""
    for name in ("_ID_SECONDS", "_REQUEST_SECONDS"):
        monkeypatch.setattr(kafka_topic, name, 0.3)
    process = psutil.Process()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = load(KafkaSettings, kafka_bootstrap_servers=f"127.0.0.1:{deaf.getsockname()[1]}", kafka_topic="none")
        topic_id = TopicId(settings)
        gc.collect()
        gc.disable()
        try:
            threads, clients = [], set()
            for _ in range(4):
                with pytest.raises(RetryableError, match=r"_TRANSPORT|_TIMED_OUT"):
                    topic_id.read()
                threads.append(process.num_threads())
                clients.add(id(topic_id._admin))
        finally:
            gc.enable()
    assert len(clients) > 1, "none was replaced"
    assert max(threads) == threads[0]


def read_soon(topic_id: TopicId) -> str | None:
    """Not at once: brokers hear of a new topic, and of a lost node, a little later."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return topic_id.read()
        except RetryableError:
            if time.monotonic() > deadline:
                raise
