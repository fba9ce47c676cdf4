"""A worker's start while Kafka is silent, or some of its addresses are bad. While it is slow or paused: `make crash`."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from signal import Signals

import pytest
from acceptance.running_pipeline import RunningPipeline, fields_in_log, wait_until
from acceptance.test_worker import logins, message_id
from bad_listeners import silent, swallowing

from dev_servers.kafka import Kafka

Listener = Callable[[], AbstractContextManager[str]]

RECORDS = 1_000


def wait_for_all_rows(pipeline: RunningPipeline) -> None:
    wait_until(lambda: pipeline.count("user_logins") >= RECORDS, "all rows are written")
    pipeline.assert_each_once(message_id(number) for number in range(RECORDS))
    assert len(fields_in_log(pipeline.log("worker"), "worker_started")) == 1


@pytest.mark.parametrize("bad", [silent, swallowing])
def test_bad_bootstrap_servers_beside_a_good_one_cost_a_start_nothing(pipeline: RunningPipeline, bad: Listener) -> None:
    """Three, as aiokafka tries them in an order by chance, and two consumers do."""
    pipeline.produce(logins(range(RECORDS)))
    with ExitStack() as opened:
        servers = [*(opened.enter_context(bad()) for _ in range(3)), pipeline.bootstrap_servers]
        pipeline.start_worker(KAFKA_BOOTSTRAP_SERVERS=",".join(servers))
        wait_for_all_rows(pipeline)
    assert "kafka_failing" not in pipeline.log("worker")


def test_a_start_that_waits_for_a_silent_kafka_ends_when_it_is_told_to(pipeline: RunningPipeline, kafka: Kafka) -> None:
    pipeline.start_worker()
    wait_until(lambda: "worker_started" in pipeline.log("worker"), "it has found the topic")
    kafka.child.send_signal(Signals.SIGSTOP)
    try:
        wait_until(lambda: "kafka_failing" in pipeline.log("worker"), "it says that it waits for Kafka", 40)
        assert pipeline.stop_worker() == 0
    finally:
        kafka.child.send_signal(Signals.SIGCONT)


FLUSH_SECONDS = 1.0
STOPPED_SECONDS = FLUSH_SECONDS + 5.0


def test_a_worker_with_records_in_hand_stops_within_its_bound_while_kafka_is_silent(
    pipeline: RunningPipeline, kafka: Kafka
) -> None:
    """Each server, away, silent and slow, with each process: `make stops`."""
    pipeline.produce(logins(range(RECORDS)))
    pipeline.start_worker(FLUSH_SECONDS=str(FLUSH_SECONDS), WINDOW_SECONDS="60", WINDOW_ROWS="100000")
    buffered = partial(pipeline.metric, "worker", "stream_partition_buffered_records")
    pipeline.wait_ready("worker")
    wait_until(lambda: buffered() >= RECORDS, "all records are in hand")
    kafka.child.send_signal(Signals.SIGSTOP)
    try:
        began = time.monotonic()
        assert pipeline.stop_worker() == 0
        assert time.monotonic() - began < STOPPED_SECONDS
    finally:
        kafka.child.send_signal(Signals.SIGCONT)
    assert "group_not_left" in pipeline.log("worker")
    assert pipeline.count("user_logins") == RECORDS
