"""The raw topic: looked at by each process, created where it may be, told from another of its name by its id."""

import difflib
from collections.abc import Iterable
from threading import Lock
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from pipeline.contract import RECORD_BYTES_MAX
from pipeline.errors import FatalError
from pipeline.kafka_reachability import KafkaUnreachableError
from pipeline.settings import KafkaSettings

log = structlog.stdlib.get_logger("pipeline.kafka_topic")

_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_REQUEST_SECONDS = 5.0  # a stop waits for one such request
_ID_SECONDS = 3.0  # asked for twice, with a request between
_NO_ID = "A" * 22  # what brokers before 2.8 tell


def _configuration(settings: KafkaSettings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "log_level": 0,
        "log.connection.close": False,
        "reconnect.backoff.max.ms": 1_000,
    }


def ensure_topic(settings: KafkaSettings) -> bool:
    """Look at the topic, or create it if it is missing and may be; True if this call created it. Blocks for up to 15 seconds.

    An existing topic is left as it is. Raises :class:`RetryableError` when Kafka can't be reached and :class:`FatalError` when
    it refuses, when the topic is missing and is not to be created, and when it compacts.
    """
    admin = AdminClient(_configuration(settings))
    try:
        cluster = admin.list_topics(timeout=_REQUEST_SECONDS)
        found = cluster.topics.get(settings.kafka_topic)
        if found is not None and found.error is None:
            _refuse_compaction(admin, settings)
            return False
        brokers = len(cluster.brokers)
        if not _may_create(settings, brokers):
            raise FatalError(_missing(settings, [name for name, topic in cluster.topics.items() if topic.error is None]))
        admin.create_topics([_new_topic(settings)], request_timeout=_REQUEST_SECONDS)[settings.kafka_topic].result()
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False  # another process was quicker
        if (
            cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        ):  # told by one node and not by another: it has just been made, or deleted
            problem = f"Kafka's nodes don't agree yet whether there is KAFKA_TOPIC {settings.kafka_topic!r}"
            raise KafkaUnreachableError(problem, cause.name()) from error
        if cause.retriable() or cause.code() < 0:  # below 0: the client's own, such as no broker within the time
            raise KafkaUnreachableError(
                f"Kafka at KAFKA_BOOTSTRAP_SERVERS does not answer: {cause.name()}", cause.name()
            ) from error
        raise FatalError(f"Kafka refused to create KAFKA_TOPIC {settings.kafka_topic!r}: {cause.name()}, {cause.str()}") from error
    if brokers > 1 and settings.kafka_topic_replication == 1:
        log.warning("topic_not_replicated", topic=settings.kafka_topic, brokers=brokers, setting="KAFKA_TOPIC_REPLICATION")
    return True


def _new_topic(settings: KafkaSettings) -> NewTopic:
    return NewTopic(
        settings.kafka_topic,
        num_partitions=settings.kafka_topic_partitions,
        replication_factor=settings.kafka_topic_replication,
        config={
            "min.insync.replicas": str(settings.kafka_topic_min_insync_replicas),
            "retention.ms": str(int(settings.kafka_topic_retention_hours * 3_600_000)),
            "cleanup.policy": "delete",
            "max.message.bytes": str(RECORD_BYTES_MAX),
            "compression.type": "producer",  # the bridge compresses once; the broker keeps the batch as it is
            # The broker's time, not the bridge's: with a clock that is an hour ahead Kafka would take no record, with one that
            # is days behind retention would remove each on arrival.
            "message.timestamp.type": "LogAppendTime",
        },
    )


def _may_create(settings: KafkaSettings, brokers: int) -> bool:
    return brokers == 1 if settings.kafka_topic_create is None else settings.kafka_topic_create == "auto"


def _missing(settings: KafkaSettings, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(settings.kafka_topic, names, n=1)
    correct = f"correct it (there is {near[0]!r})" if near else "correct it"
    return (
        f"KAFKA_TOPIC: there is no topic {settings.kafka_topic!r}, or this process may not see it: {correct}, have the topic made,"
        " or set KAFKA_TOPIC_CREATE=auto"
    )


def is_compacted(admin: AdminClient, topic: str) -> bool | None:
    """Whether Kafka removes the topic's records whose key came again; None: we may not ask. Raises :class:`KafkaException`."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        policy = admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()["cleanup.policy"]
    except KafkaException as error:
        if error.args[0].code() in _NOT_ALLOWED:
            return None
        raise
    return "compact" in policy.value.split(",")


def _refuse_compaction(admin: AdminClient, settings: KafkaSettings) -> None:
    compacted = is_compacted(admin, settings.kafka_topic)
    if compacted is None:
        log.warning("topic_configuration_hidden", topic=settings.kafka_topic, missing_right="DescribeConfigs")
    elif compacted and settings.kafka_topic_compacted == "refuse":
        raise FatalError(
            f"KAFKA_TOPIC: {settings.kafka_topic!r} compacts (cleanup.policy), which removes records whose key came again, read or"
            " not: set its cleanup.policy to delete, or KAFKA_TOPIC_COMPACTED=accept to lose them"
        )
    elif compacted:
        log.warning("topic_compacts", topic=settings.kafka_topic)


class TopicId:
    """Asks for the topic's id, which Kafka makes up when it makes a topic, over a connection of its own. Thread-safe.

    A client of librdkafka that was told of no node, as while all are fenced, may connect to none ever again (its issue #5301): so
    one that reached no broker is replaced. It ends, which may take seconds, in the thread of the last call that uses it: nothing
    that outlives a call may hold it. An error that is raised holds the frames that it went through, so none is raised where a
    client is at hand; and ``list_topics`` keeps for ever the error that is being handled when it fails (confluent-kafka 2.16).
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.kafka_topic
        self._configuration = _configuration(settings)
        self._renewing = Lock()
        self._admin = AdminClient(self._configuration)

    def read(self) -> str | None:
        """The id as Kafka's own tools show it; None where Kafka tells none. Blocks for up to 11 seconds. Raises RetryableError."""
        found = self._found()
        if isinstance(found, KafkaError):
            raise KafkaUnreachableError(f"Kafka does not tell which topic KAFKA_TOPIC is: {found.name()}", found.name())
        return None if found == _NO_ID else found

    def _found(self) -> str | KafkaError:
        admin = self._admin
        found = self._ask(admin)
        if isinstance(found, KafkaError) and found.code() == KafkaError._TIMED_OUT:  # noqa: SLF001 - so confluent-kafka names it
            # librdkafka 2.16 asks the controller, and waits for the one that it knows: with a node of three away no id came until
            # it was back. The answer to this question, which any node may answer, says which is the controller now.
            try:
                admin.list_topics(timeout=_REQUEST_SECONDS)
            except KafkaException as error:
                found = error.args[0]
            else:
                found = self._ask(admin)
        if isinstance(found, KafkaError) and found.code() < 0:  # the client's own: no broker has answered
            with self._renewing:
                if self._admin is admin:  # no other thread was quicker
                    self._admin = AdminClient(self._configuration)
        return found

    def _ask(self, admin: AdminClient) -> str | KafkaError:
        answer = admin.describe_topics(TopicCollection([self._topic]), request_timeout=_ID_SECONDS)[self._topic]
        error = answer.exception()
        return str(answer.result().topic_id) if error is None else error.args[0]
