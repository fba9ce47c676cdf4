"""boto3, one message at a time: receive it, wait until Kafka has it, delete it."""

import os

import boto3
from confluent_kafka import KafkaException

from benchmarks.peers.sqs_messages import RECEIVE, producer, record

FLUSH_SECONDS = 30.0


def main() -> None:
    """Until it is ended."""
    queue_url, topic = os.environ["SQS_QUEUE_URL"], os.environ["KAFKA_TOPIC"]
    sqs = boto3.client("sqs")
    kafka = producer(linger_seconds=0)
    while True:
        for message in sqs.receive_message(QueueUrl=queue_url, **{**RECEIVE, "MaxNumberOfMessages": 1}).get("Messages", []):
            kafka.produce(topic, **record(message, queue_url), on_delivery=_raise)
            if kafka.flush(FLUSH_SECONDS):
                raise TimeoutError("Kafka did not acknowledge a record")
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


def _raise(error: object, _record: object) -> None:
    if error is not None:
        raise KafkaException(error)


if __name__ == "__main__":
    main()
