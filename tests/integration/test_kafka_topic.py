"""The topic on a real Kafka: made once, and told from one of the same name that was made anew."""

import pytest
from confluent_kafka.admin import AdminClient

from dev_servers.kafka import Kafka
from pipeline.errors import RetryableError
from pipeline.kafka_topic import TopicId, ensure_topic
from pipeline.settings import KafkaSettings, load


def test_a_topic_made_anew_has_another_id(kafka: Kafka) -> None:
    settings = load(KafkaSettings, kafka_bootstrap_servers=kafka.bootstrap_servers, kafka_topic="made-anew")
    topic_id = TopicId(settings)
    with pytest.raises(RetryableError, match="UNKNOWN_TOPIC_OR_PART"):
        topic_id.read()
    assert [ensure_topic(settings), ensure_topic(settings)] == [True, False]
    first = topic_id.read()
    assert first is not None
    assert topic_id.read() == first
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics(["made-anew"])["made-anew"].result(10)
    assert ensure_topic(settings)
    assert topic_id.read() not in (None, first)
