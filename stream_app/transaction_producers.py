"""Asks Kafka whose transaction is open in a partition (DescribeProducers, KIP-664; brokers from 2.8 on).

Neither aiokafka 0.14 nor confluent-kafka 2.16 has this request, so its form is written down here in aiokafka's words
(``protocol/api.py``, ``client.py``). The other way would be the header of the first batch at the last stable offset: it takes a
fetch past what is committed, whose size another producer decides, and tells nothing more.

It is asked once for each transaction that stays open, over a connection of its own that is closed again: nothing rests on it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.structs import TopicPartition

from pipeline.settings import KafkaSettings

ANSWER_SECONDS = 5.0
_TAGS = ("tags", TaggedFields)


class _DescribeProducersResponse(Response):  # type: ignore[misc] # aiokafka says nothing of its types
    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition_index", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "active_producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("current_txn_start_offset", Int64),
                                _TAGS,
                            ),
                        ),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _DescribeProducersRequestV0(RequestStruct):  # type: ignore[misc] # likewise
    API_KEY = 61
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeProducersResponse
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("topics", CompactArray(("name", CompactString("utf-8")), ("partition_indexes", CompactArray(Int32)), _TAGS)), _TAGS
    )


class _DescribeProducersRequest(Request[_DescribeProducersRequestV0]):  # type: ignore[misc] # likewise
    """Raises ``IncompatibleBrokerVersion`` where the broker does not know it."""

    API_KEY = 61

    def __init__(self, topic: str, partitions: list[int]) -> None:
        self._topic = topic
        self._partitions = partitions

    def build(self, request_struct_class: type[_DescribeProducersRequestV0]) -> _DescribeProducersRequestV0:
        return request_struct_class([(self._topic, self._partitions, {})], {})


def transaction_producers(settings: KafkaSettings, offsets: Mapping[int, int]) -> dict[int, int | str]:
    """Whose transaction begins at these offsets: by partition of the topic the producer's id, or why it is not known.

    Blocks for up to 5 seconds. Raises nothing.
    """
    try:
        return asyncio.run(asyncio.wait_for(_ask(settings, offsets), ANSWER_SECONDS))
    except (KafkaError, OSError) as error:  # a TimeoutError among them
        return dict.fromkeys(offsets, f"unknown ({type(error).__name__})")


async def _ask(settings: KafkaSettings, offsets: Mapping[int, int]) -> dict[int, int | str]:
    found: dict[int, int | str] = dict.fromkeys(offsets, "unknown (the partition has no leader)")
    client = AIOKafkaClient(bootstrap_servers=settings.kafka_bootstrap_servers, request_timeout_ms=int(ANSWER_SECONDS * 1_000))
    try:
        await client.bootstrap()
        await client.set_topics([settings.kafka_topic])
        by_leader: defaultdict[Any, list[int]] = defaultdict(list)
        for partition in offsets:
            leader = client.cluster.leader_for_partition(TopicPartition(settings.kafka_topic, partition))
            by_leader[leader].append(partition)
        for leader, partitions in by_leader.items():
            if leader in (None, -1):
                continue
            answer = await client.send(leader, _DescribeProducersRequest(settings.kafka_topic, partitions))
            for topic in answer.to_object()["topics"]:
                for each in topic["partitions"]:
                    found[each["partition_index"]] = _producer(each, offsets[each["partition_index"]])
    finally:
        await client.close()
    return found


def _producer(described: Mapping[str, Any], offset: int) -> int | str:
    if described["error_code"]:
        return f"unknown ({for_code(described['error_code']).__name__})"
    ids = [each["producer_id"] for each in described["active_producers"] if each["current_txn_start_offset"] == offset]
    return int(ids[0]) if ids else "unknown (it has just ended, or its coordinator is ending it)"
