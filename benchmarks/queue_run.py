"""One run from a full queue to the topic; the same for every peer.

It begins with the time stamp of the first record in the topic and ends when the queue holds no message any more, neither visible
nor hidden: every delete is in it, start-up is not. Until the topic is full only its end is asked for, which costs nothing; then
the queue, which costs more the more it holds. A run whose topic does not hold exactly the queue's messages has no figures.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.meter import Meter
from benchmarks.peer import Peer, Servers
from benchmarks.report import Quantity
from benchmarks.session import NoFiguresError, Update
from benchmarks.topics import REQUEST_SECONDS, LogEnds, make_topic, remove_topic
from benchmarks.workbench import VISIBILITY_SECONDS, Workbench
from dev_servers.process import ChildProcess, log_tail
from dev_servers.raw_queue import BATCH_MESSAGES_MAX, RawQueue

PARTITIONS = 4
SENDERS = 8
RUN_SECONDS_MAX = 300.0
STALL_SECONDS_MAX = 30.0
TOPIC_POLL_SECONDS = 0.1
QUEUE_POLL_SECONDS = 0.01
READ_RECORDS = 10_000

QUANTITIES = (
    Quantity("messages_per_second", "messages/s"),
    Quantity("cpu_us", "CPU us a message"),
    Quantity("elasticmq_cpu_us", "ElasticMQ CPU us a message"),
    Quantity("kafka_cpu_us", "Kafka CPU us a message"),
    Quantity("memory_mb", "memory MB"),
    Quantity("start_seconds", "start-up s", 1),
    Quantity("other_cores", "cores busy otherwise", 2),
)


def fill_queue(queue_url: str, bodies: Sequence[str]) -> None:
    """Empty the queue, then send all."""
    batches = [bodies[start : start + BATCH_MESSAGES_MAX] for start in range(0, len(bodies), BATCH_MESSAGES_MAX)]

    def send(part: Sequence[Sequence[str]]) -> None:
        with RawQueue(queue_url) as queue:
            for batch in part:
                queue.send(batch)

    with RawQueue(queue_url) as queue:
        queue.purge()
        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, (batches[number::SENDERS] for number in range(SENDERS))))
        if (size := queue.size()) != len(bodies):
            raise NoFiguresError(f"the queue holds {size:,} messages instead of {len(bodies):,}")


def run_queue_peer(bench: Workbench, peer: Peer, bodies: Sequence[str], on_progress: Update) -> Mapping[str, float]:
    """The figures, by the keys of :data:`QUANTITIES`. Raises :class:`NoFiguresError`."""
    kafka = bench.kafka.bootstrap_servers
    topic = f"bridge-{time.time_ns()}"
    make_topic(kafka, topic, PARTITIONS)
    # A queue of its own: the server hands messages to the requests that the last peer left open, to be seen again much later.
    with RawQueue(bench.elasticmq.queue_url) as queue:
        queue_url = queue.create(topic, VISIBILITY_SECONDS)
    fill_queue(queue_url, bodies)
    started_at = time.time()
    servers = bench.servers(topic, PARTITIONS, queue_url)
    child = bench.launch(peer.name, peer.command(servers))
    try:
        with Meter({"peer": child.pid, **bench.pids}) as meter:
            ended_at = _wait_until_moved(servers, child, len(bodies), on_progress)
    finally:
        child.stop()
        with RawQueue(queue_url) as queue:
            queue.remove()
    began_at = _check(kafka, topic, bodies)
    remove_topic(kafka, topic)
    span = (began_at, ended_at)
    per_message = 1e6 / len(bodies)
    return {
        "messages_per_second": len(bodies) / (ended_at - began_at),
        "cpu_us": meter.cpu("peer", *span) * per_message,
        "elasticmq_cpu_us": meter.cpu("elasticmq", *span) * per_message,
        "kafka_cpu_us": meter.cpu("kafka", *span) * per_message,
        "memory_mb": meter.resident_most("peer") / 1e6,
        "start_seconds": began_at - started_at,
        "other_cores": meter.other_cores(*span),
    }


def _wait_until_moved(servers: Servers, child: ChildProcess, messages: int, on_progress: Update) -> float:
    """Until the topic holds them and the queue holds none; when that was seen."""
    moved, left = 0, messages
    began_at = changed_at = time.monotonic()
    with LogEnds(servers.kafka_bootstrap_servers, servers.topic) as ends, RawQueue(servers.sqs_queue_url) as queue:
        while left:
            found, now = sum(ends.read().values()), time.monotonic()
            before = moved, left
            moved = found
            if moved >= messages:
                left = queue.size()
            if (moved, left) != before:
                changed_at = now
                on_progress(f"{moved:,} messages")
            if child.returncode is not None:
                raise NoFiguresError(f"ended early after {moved:,} messages", log_tail(child.log_file))
            if now - changed_at > STALL_SECONDS_MAX:
                reason = f"nothing moved for {STALL_SECONDS_MAX:.0f} s: {moved:,} in the topic, {left:,} in the queue"
                raise NoFiguresError(reason, log_tail(child.log_file))
            if now - began_at > RUN_SECONDS_MAX:
                raise NoFiguresError(f"was not done within {RUN_SECONDS_MAX:.0f} s", log_tail(child.log_file))
            if left:
                time.sleep(QUEUE_POLL_SECONDS if moved >= messages else TOPIC_POLL_SECONDS)
    return time.time()


def _check(bootstrap_servers: str, topic: str, bodies: Sequence[str]) -> float:
    """The topic holds exactly these bodies; the time stamp of its first record, in seconds since the epoch."""
    found: Counter[bytes] = Counter()
    first_ms = float("inf")
    with LogEnds(bootstrap_servers, topic) as ends:
        expected = sum(ends.read().values())
        consumer: Consumer = ends.consumer
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        while found.total() < expected:
            for record in consumer.consume(READ_RECORDS, REQUEST_SECONDS):
                if record.error() is not None:
                    raise KafkaException(record.error())
                found[record.value() or b""] += 1
                first_ms = min(first_ms, record.timestamp()[1])
    wanted = Counter(body.encode() for body in bodies)
    if found != wanted:
        lost, more = (wanted - found).total(), (found - wanted).total()
        raise NoFiguresError(f"{lost:,} messages are not in the topic, {more:,} are there twice or were never sent")
    return first_ms / 1000
