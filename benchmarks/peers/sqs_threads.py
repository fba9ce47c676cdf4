"""boto3 in threads, by tens: receive ten, wait until Kafka has all of them, delete the ten. What most fast bridges are."""

import os
import threading

import boto3
from confluent_kafka import Producer

from benchmarks.peers.sqs_messages import RECEIVE, entries, producer, record

THREADS = 16
LINGER_SECONDS = 0.002
DELIVERY_SECONDS = 60.0


class Deliveries:
    """Those of one batch: :meth:`wait` returns when Kafka has said of each what became of it."""

    def __init__(self, records: int) -> None:
        self._left = records
        self._failed: object = None
        self._all = threading.Event()

    def on_delivery(self, error: object, _record: object) -> None:
        """Called by the one thread that polls."""
        self._failed = self._failed or error
        self._left -= 1
        if not self._left:
            self._all.set()

    def wait(self) -> bool:
        """Whether Kafka has all of them; if not, none is deleted and SQS gives them out again."""
        return self._all.wait(DELIVERY_SECONDS) and self._failed is None


def bridge(kafka: Producer) -> None:
    """One thread, with a client of its own."""
    queue_url, topic = os.environ["SQS_QUEUE_URL"], os.environ["KAFKA_TOPIC"]
    sqs = boto3.session.Session().client("sqs")
    while True:
        messages = sqs.receive_message(QueueUrl=queue_url, **RECEIVE).get("Messages", [])
        if not messages:
            continue
        deliveries = Deliveries(len(messages))
        for message in messages:
            kafka.produce(topic, **record(message, queue_url), on_delivery=deliveries.on_delivery)
        if deliveries.wait():
            sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages))


def poll(kafka: Producer) -> None:
    """Serves the delivery reports."""
    while True:
        kafka.poll(0.1)


def end_process(failure: threading.ExceptHookArgs) -> None:
    """What fails in one thread is not left to the others."""
    threading.__excepthook__(failure)
    os._exit(1)


def main() -> None:
    """Until it is ended."""
    threading.excepthook = end_process
    kafka = producer(LINGER_SECONDS)
    threads = [threading.Thread(target=work, args=(kafka,)) for work in (poll, *[bridge] * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
