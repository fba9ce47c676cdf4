"""Every metric of the bridge. Counted per request or batch; labels are bounded and there from the start."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, PlatformCollector, ProcessCollector

import pipeline

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DELAY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0)

OPERATIONS = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "GetQueueAttributes")
REQUEST_RESULTS = ("ok", "throttled", "failed", "refused")
ENTRY_RESULTS = ("ok", "expired", "refused", "failed")


class BridgeMetrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        build = Info("bridge_build", "Version of this program.", registry=registry)
        build.info({"version": pipeline.__version__})

        self.received = Counter("bridge_messages_received", "Messages received from SQS.", registry=registry)
        self.redelivered = Counter(
            "bridge_messages_redelivered", "Received messages that SQS had given out before.", registry=registry
        )
        self.forwarded = Counter(
            "bridge_messages_forwarded", "Messages that Kafka acknowledged as records of the topic.", registry=registry
        )
        self.forwarded_bytes = Counter("bridge_forwarded_bytes", "Bytes of their bodies.", registry=registry)
        self.refused = Counter(
            "bridge_messages_refused",
            "Messages that Kafka refuses for ever (too large); they stay in SQS for its dead-letter queue.",
            registry=registry,
        )
        self.released = Counter(
            "bridge_messages_released", "Messages made visible again without having been forwarded.", registry=registry
        )
        self.expired = Counter(
            "bridge_receipts_expired",
            "Messages whose receipt expired while they were held; SQS gives them out again.",
            registry=registry,
        )
        self.produce_failures = Counter(
            "bridge_produce_failures", "Records that Kafka failed to acknowledge and that are tried anew.", registry=registry
        )
        self.abandoned = Counter(
            "bridge_answers_abandoned",
            "Answers of SQS that were not read, since memory was short for too long; SQS gives their messages out again.",
            registry=registry,
        )
        self.in_flight = Gauge("bridge_in_flight_messages", "Messages received and not yet deleted.", registry=registry)
        self.in_flight_bytes = Gauge(
            "bridge_in_flight_bytes",
            "What they take in memory, and answers of SQS that are being read; bounded by BRIDGE_IN_FLIGHT_BYTES_MAX.",
            registry=registry,
        )
        self.receivers_active = Gauge("bridge_receivers_active", "Receivers that may ask SQS at the moment.", registry=registry)
        self.receivers_asking = Gauge(
            "bridge_receivers_asking",
            "Receivers that have asked SQS and have no answer yet, tries again included; 0 while there is no room, or no Kafka.",
            registry=registry,
        )
        self.queue_visible = Gauge(
            "bridge_queue_visible_messages", "Messages that wait in the queue, as SQS estimates.", registry=registry
        )
        self.queue_hidden = Gauge(
            "bridge_queue_in_flight_messages", "Messages of the queue that any reader holds, as SQS estimates.", registry=registry
        )
        self.queue_retention = Gauge(
            "bridge_queue_retention_seconds", "How long the queue keeps a message; it is lost after that.", registry=registry
        )
        self.oldest_message = Gauge(
            "bridge_oldest_message_timestamp_seconds",
            "Sent at of the oldest message that the bridge holds and Kafka has not acknowledged; 0 when there is none.",
            registry=registry,
        )
        self.unacknowledged = Gauge(
            "bridge_unacknowledged_messages", "Messages that Kafka has and has not acknowledged.", registry=registry
        )
        self.last_poll = Gauge(
            "bridge_last_poll_timestamp_seconds", "When SQS last answered a receive, with messages or without.", registry=registry
        )
        self.last_acknowledged = Gauge(
            "bridge_last_acknowledged_timestamp_seconds", "When Kafka last acknowledged a record.", registry=registry
        )
        self.queue_delay = Histogram(
            "bridge_queue_delay_seconds",
            "From sent to received, of the first message of each receive.",
            buckets=DELAY_BUCKETS,
            registry=registry,
        )
        self.acknowledge_seconds = Histogram(
            "bridge_produce_acknowledge_seconds",
            "From produced to acknowledged, of one record of each answer.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        ready = Gauge("bridge_ready", "1 until the dependency fails, and while it works.", ["dependency"], registry=registry)
        self.ready = {name: ready.labels(name) for name in ("sqs", "kafka")}
        deleted = Counter(
            "bridge_messages_deleted",
            "Deletes of forwarded messages, each try, as SQS answered it; a request that failed as a whole counts none.",
            ["result"],
            registry=registry,
        )
        self.deleted = {result: deleted.labels(result) for result in ENTRY_RESULTS}
        extensions = Counter(
            "bridge_visibility_extensions", "Messages whose visibility was extended.", ["result"], registry=registry
        )
        self.extensions = {result: extensions.labels(result) for result in ENTRY_RESULTS}
        backoffs = Counter("bridge_backoffs", "Pauses after a failure.", ["dependency"], registry=registry)
        self.backoffs = {name: backoffs.labels(name) for name in ("sqs", "kafka")}
        requests = Counter("bridge_sqs_requests", "Requests to SQS.", ["operation", "result"], registry=registry)
        self._requests = {
            (operation, result): requests.labels(operation, result) for operation in OPERATIONS for result in REQUEST_RESULTS
        }
        seconds = Histogram(
            "bridge_sqs_request_seconds",
            "Time of requests to SQS; that of ReceiveMessage holds the wait for a message.",
            ["operation"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._request_seconds = {operation: seconds.labels(operation) for operation in OPERATIONS}

    def observe_request(self, operation: str, result: str, seconds: float) -> None:
        """Count one request to SQS."""
        self._requests[operation, result].inc()
        self._request_seconds[operation].observe(seconds)

    def watch(
        self,
        *,
        messages: Callable[[], float],
        size: Callable[[], float],
        receivers: Callable[[], float],
        asking: Callable[[], float],
        oldest: Callable[[], float],
        unacknowledged: Callable[[], float],
    ) -> None:
        """Read these gauges from their source whenever Prometheus asks."""
        self.in_flight.set_function(messages)
        self.in_flight_bytes.set_function(size)
        self.receivers_active.set_function(receivers)
        self.receivers_asking.set_function(asking)
        self.oldest_message.set_function(oldest)
        self.unacknowledged.set_function(unacknowledged)
