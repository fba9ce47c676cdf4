from typing import cast

from bridges.message import Message
from bridges.metrics import BridgeMetrics
from bridges.settings import BridgeSettings
from bridges.sqs_queue import SqsQueue
from bridges.sqs_to_kafka import PRODUCE_BACKOFF_SECONDS_MAX, SqsToKafka, produce_backoff_seconds


class Queue:
    is_fifo = False


def test_the_backoff_grows_to_its_bound_however_long_kafka_is_away() -> None:
    assert 0.1 <= produce_backoff_seconds(0) <= 0.2
    for attempts in (6, 100, 100_000):
        assert PRODUCE_BACKOFF_SECONDS_MAX / 2 <= produce_backoff_seconds(attempts) <= PRODUCE_BACKOFF_SECONDS_MAX


def test_what_kafka_has_is_no_longer_late_here_though_sqs_has_it_still() -> None:
    metrics = BridgeMetrics()
    settings = BridgeSettings(sqs_queue_url="http://127.0.0.1:1/0/logins")
    forwarding = SqsToKafka(settings, cast("SqsQueue", Queue()), metrics)

    def oldest() -> float | None:
        return metrics.registry.get_sample_value("bridge_oldest_message_timestamp_seconds")

    assert oldest() == 0
    first, second, of_no_time = (
        Message("1", "", b"", sent_at="1000000"),
        Message("2", "", b"", sent_at="2000000"),
        Message("3", "", b""),
    )
    forwarding.receipts.hold([second, first, of_no_time], 0.0, 30)
    assert oldest() == 1_000
    first.acknowledged = True
    assert oldest() == 2_000
    second.acknowledged = True
    assert oldest() == 0
    assert metrics.registry.get_sample_value("bridge_in_flight_messages") == 3
