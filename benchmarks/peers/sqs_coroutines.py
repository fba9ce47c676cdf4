"""aiobotocore in one event loop, by tens: receive ten, wait until Kafka has all of them, delete the ten."""

import asyncio
import os
import threading

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from confluent_kafka import KafkaException, Producer

from benchmarks.peers.sqs_messages import RECEIVE, entries, producer, record

COROUTINES = 32
LINGER_SECONDS = 0.002


class Deliveries:
    """Those of one batch, to be awaited."""

    def __init__(self, records: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = records
        self.all: asyncio.Future[None] = self._loop.create_future()

    def on_delivery(self, error: object, _record: object) -> None:
        """Called by the thread that polls."""
        self._left -= 1
        if error is not None or not self._left:
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: object) -> None:
        if self.all.done():
            return
        if error is not None:
            self.all.set_exception(KafkaException(error))
        else:
            self.all.set_result(None)


def poll(kafka: Producer) -> None:
    """Serves the delivery reports."""
    while True:
        kafka.poll(0.1)


async def main() -> None:
    """Until it is ended; a coroutine that fails ends it."""
    queue_url, topic = os.environ["SQS_QUEUE_URL"], os.environ["KAFKA_TOPIC"]
    kafka = producer(LINGER_SECONDS)
    threading.Thread(target=poll, args=(kafka,), daemon=True).start()
    async with get_session().create_client("sqs", config=AioConfig(max_pool_connections=COROUTINES)) as sqs:

        async def bridge() -> None:
            while True:
                messages = (await sqs.receive_message(QueueUrl=queue_url, **RECEIVE)).get("Messages", [])
                if not messages:
                    continue
                deliveries = Deliveries(len(messages))
                for message in messages:
                    kafka.produce(topic, **record(message, queue_url), on_delivery=deliveries.on_delivery)
                await deliveries.all
                await sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries(messages))

        await asyncio.gather(*(bridge() for _ in range(COROUTINES)))


if __name__ == "__main__":
    asyncio.run(main())
