"""The board for a closer look: one row of panels for each hop, down to the worker and the partition."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.boards import panels
from tools.boards.panels import ANSWERS, COUNT, Query, choice, graph, heat, listing, quantiles, row, states

BRIDGE = 'instance=~"$bridge"'
WORKER = 'instance=~"$worker"'
PARTITION = 'partition=~"$partition"'
OF_WORKER_AND_PARTITION = f"{WORKER},{PARTITION}"


def board() -> Dashboard:
    """The board."""
    built = (
        panels.board("hops", "hop by hop", "SQS, Kafka, worker, Postgres: each in a row, by bridge, worker and partition.")
        .with_variable(choice("bridge", "Bridge", 'label_values(up{job="bridge"}, instance)'))
        .with_variable(choice("worker", "Worker", 'label_values(up{job="worker"}, instance)'))
        .with_variable(choice("partition", "Partition", "label_values(monitor_partition_log_end_offset, partition)"))
    )
    for add in (_sqs, _kafka, _worker, _postgres, _process):
        add(built)
    return built


def _sqs(board: Dashboard) -> None:
    board.with_row(row("SQS, and the bridge that empties it"))
    board.with_panel(
        graph(
            "What is in the queue?",
            Query("max(bridge_queue_visible_messages)", "waiting"),
            Query("max(bridge_queue_in_flight_messages)", "hidden, in any reader's hands"),
            unit="short",
            width=8,
            description="As SQS estimates it, twice a minute. Hidden and never deleted: a reader that died.",
        )
    )
    board.with_panel(
        graph(
            "How old is the oldest message?",
            Query("pipeline:held_seconds:max", "in a bridge's hands"),
            *quantiles("bridge_queue_delay_seconds", BRIDGE, of="messages, in the queue")[:2],
            unit="s",
            width=8,
            description="The oldest that a bridge holds and Kafka has not acknowledged, and how long messages had waited in the "
            "queue when they were received.",
        )
    )
    board.with_panel(
        graph(
            "Messages through the bridge",
            Query(
                f"sum by (instance) (rate(bridge_messages_received_total{{{BRIDGE}}}[$__rate_interval]))", "{{instance}} received"
            ),
            Query(
                f"sum by (instance) (rate(bridge_messages_forwarded_total{{{BRIDGE}}}[$__rate_interval]))", "{{instance}} forwarded"
            ),
            Query(
                f"sum by (instance, result) (rate(bridge_messages_deleted_total{{{BRIDGE}}}[$__rate_interval])) > 0",
                "{{instance}} deletes: {{result}}",
            ),
            unit="mps",
            width=8,
            description="Received and not forwarded: Kafka. Forwarded and not deleted: rights or receipts; the bridge fills up and "
            "receives no more.",
        )
    )
    board.with_panel(
        graph(
            "Requests to SQS",
            Query(
                f"sum by (operation, result) (rate(bridge_sqs_requests_total{{{BRIDGE}}}[$__rate_interval])) > 0",
                "{{operation}}: {{result}}",
            ),
            unit="reqps",
            width=8,
            description="Each is paid for. throttled: SQS asks for patience. refused: a right, the queue or the credentials are "
            "missing.",
        )
    )
    board.with_panel(
        graph(
            "How long does SQS take?",
            *quantiles("bridge_sqs_request_seconds", BRIDGE, "operation", of="requests")[1:2],
            unit="s",
            width=8,
            description="99 % of the requests took no longer. ReceiveMessage holds the wait for a message: seconds in an idle "
            "queue.",
        )
    )
    board.with_panel(
        graph(
            "What comes again, and why?",
            Query(
                f"sum(rate(bridge_messages_redelivered_total{{{BRIDGE}}}[$__rate_interval]))", "received that were given out before"
            ),
            Query(f"sum(rate(bridge_receipts_expired_total{{{BRIDGE}}}[$__rate_interval]))", "receipts that expired"),
            Query(f"sum(rate(bridge_messages_released_total{{{BRIDGE}}}[$__rate_interval]))", "given back"),
            Query(f"sum(rate(bridge_answers_abandoned_total{{{BRIDGE}}}[$__rate_interval]))", "answers that did not fit in memory"),
            Query(
                f"sum by (result) (rate(bridge_visibility_extensions_total{{{BRIDGE}}}[$__rate_interval])) > 0",
                "extensions: {{result}}",
            ),
            Query(f"sum(rate(bridge_produce_failures_total{{{BRIDGE}}}[$__rate_interval]))", "produced to Kafka again"),
            unit="mps",
            width=8,
            top=1,
            description="A message that comes again is known by its id: no row is written twice. It costs time, here and in the "
            "worker.",
        )
    )
    board.with_panel(
        graph(
            "What do bridges hold?",
            Query(f"sum by (instance) (bridge_in_flight_messages{{{BRIDGE}}})", "{{instance}} received, not deleted"),
            Query(f"sum by (instance) (bridge_unacknowledged_messages{{{BRIDGE}}})", "{{instance}} not acknowledged by Kafka"),
            Query(f"sum by (instance) (bridge_receivers_active{{{BRIDGE}}})", "{{instance}} receivers"),
            Query(f"sum by (instance) (bridge_receivers_asking{{{BRIDGE}}})", "{{instance}} receivers that have asked SQS"),
            unit="short",
            width=8,
            description="Receiving waits at BRIDGE_IN_FLIGHT_MESSAGES_MAX. Receivers grow with the load, one while the queue is "
            "empty; none asks while the bridge is full or Kafka away.",
        )
    )
    board.with_panel(
        graph(
            "How long ago did SQS answer?",
            Query(f"time() - (bridge_last_poll_timestamp_seconds{{{BRIDGE}}} > 0)", "{{instance}}"),
            unit="s",
            width=8,
            description="The last answer to a receive, with messages or without. It grows while SQS does not answer, and while the "
            "bridge does not ask: it is full, or Kafka is away. No line: it has had no answer since its start.",
        )
    )
    board.with_panel(
        states(
            "Does the bridge reach both sides?",
            Query(f"bridge_ready{{{BRIDGE}}}", "{{instance}}: {{dependency}}"),
            names=ANSWERS,
            width=8,
            description="Whether each dependency answers.",
        )
    )


def _kafka(board: Dashboard) -> None:
    board.with_row(row("Kafka"))
    board.with_panel(
        graph(
            "How long does Kafka take to acknowledge?",
            *quantiles("bridge_produce_acknowledge_seconds", BRIDGE, of="records"),
            unit="s",
            width=8,
            description="From produced to acknowledged by all in-sync replicas.",
        )
    )
    board.with_panel(
        graph(
            "Records that wait, by partition",
            Query(f"topic_partition:lag_records:max{{{PARTITION}}}", "partition {{partition}}"),
            unit="short",
            width=8,
            description="Log end less position in Postgres, what an open transaction hides included.",
        )
    )
    board.with_panel(
        graph(
            "Seconds behind, by partition",
            Query(f"topic_partition:lag_seconds:max{{{PARTITION}}}", "partition {{partition}}"),
            Query(
                f"max by (partition) (stream_partition_lag_seconds{{{OF_WORKER_AND_PARTITION}}})",
                "partition {{partition}}, as its worker sees it",
            ),
            unit="s",
            width=8,
            description="Age of the oldest record that is not in Postgres: as Kafka and Postgres say, and as the partition's "
            "worker sees it.",
        )
    )
    board.with_panel(
        graph(
            "Is a transaction left open?",
            Query(f"topic_partition:open_transaction_seconds:max{{{PARTITION}}}", "partition {{partition}}"),
            unit="s",
            width=8,
            description="For how long one and the same transaction has been open in a partition: nothing behind it can be read "
            "until it ends. A producer that writes in transactions shows a few seconds here, a crashed one a slope.",
        )
    )
    board.with_panel(
        graph(
            "Into and out of each partition",
            Query(
                f"max by (partition) (deriv(monitor_partition_log_end_offset{{{PARTITION}}}[$__rate_interval]))",
                "into partition {{partition}}",
            ),
            Query(
                f"max by (partition) (deriv(monitor_partition_next_offset{{{PARTITION}}}[$__rate_interval]))",
                "out of partition {{partition}}",
            ),
            unit="recps",
            width=8,
            description="How fast its log grows and how fast its position moves. One that gets much more than others has a hot "
            "key.",
        )
    )
    board.with_panel(
        graph(
            "How near is loss?",
            Query("pipeline:kept_seconds:max / on () max(monitor_topic_retention_seconds > 0)", "topic"),
            Query("pipeline:held_seconds:max / on () max(bridge_queue_retention_seconds)", "queue"),
            unit="percentunit",
            width=8,
            limit=0.5,
            top=1,
            description="Age of the oldest that waits there, as a share of how long it is kept. At 100 % it is removed unread.",
        )
    )
    board.with_panel(
        graph(
            "What does a fetch bring?",
            *quantiles("stream_fetch_records", WORKER, of="fetches")[:2],
            unit="short",
            width=8,
            description="Records of one partition in one fetch: half of the fetches, and 99 %, brought no more.",
        )
    )
    board.with_panel(
        graph(
            "Memory of a fetch",
            *quantiles("stream_fetch_bytes", WORKER, of="fetches")[:2],
            unit="bytes",
            width=8,
            description="What the records of one fetch of one partition take in memory while they wait, packed as Kafka has them.",
        )
    )
    board.with_panel(
        graph(
            "What does a partition's log hold?",
            Query(
                f"max by (partition) (monitor_partition_log_end_offset{{{PARTITION}}}"
                f" - monitor_partition_log_start_offset{{{PARTITION}}})",
                "partition {{partition}}",
            ),
            unit="short",
            width=8,
            description="Offsets from the first that Kafka still has to the end.",
        )
    )
    board.with_panel(
        graph(
            "Lost, skipped, or no records at all",
            Query("sum(rate(stream_records_lost_total[$__rate_interval]))", "lost to retention"),
            Query("sum(rate(stream_records_compacted_total[$__rate_interval]))", "lost to compaction"),
            Query("sum(max by (topic) (rate(monitor_records_skipped_total[$__rate_interval])))", "skipped by a person"),
            Query("sum(rate(stream_offsets_skipped_total[$__rate_interval]))", "offsets without a record"),
            unit="recps",
            width=8,
            top=1,
            description="Lost: removed by Kafka before they were read, or maybe so. Skipped: passed over by `positions reset`. "
            "Offsets without a record beside these are control records and what transactions took back, and harmless.",
        )
    )


def _worker(board: Dashboard) -> None:
    board.with_row(row("Worker"))
    board.with_panel(
        graph(
            "Rows by worker",
            Query(f"sum by (instance) (rate(stream_rows_written_total{{{WORKER}}}[$__rate_interval]))", "{{instance}}"),
            unit="rowsps",
            width=8,
            stacked=True,
            description="Stacked: the upper edge is what all of them write.",
        )
    )
    board.with_panel(
        graph(
            "How many partitions has each worker?",
            Query(f"count by (instance) (stream_partition_next_offset{{{WORKER}}})", "{{instance}}"),
            unit="none",
            width=8,
            stacked=True,
            description="Their sum is the topic's number of partitions, but for the moment of a rebalance.",
        )
    )
    board.with_panel(
        graph(
            "Where does a worker's time go?",
            Query(f"sum by (step) (rate(stream_build_step_seconds_total{{{WORKER}}}[$__rate_interval]))", "{{step}}"),
            Query(f"sum(rate(stream_batch_build_seconds_sum{{{WORKER}}}[$__rate_interval]))", "all of building"),
            unit="percentunit",
            width=8,
            description="Seconds of building in each second, over these workers: their own CPU. The wait for Postgres is on the "
            "board *capacity*.",
        )
    )
    board.with_panel(
        graph(
            "What closes a window?",
            Query(f"sum by (trigger) (rate(stream_batches_total{{{WORKER}}}[$__rate_interval]))", "{{trigger}}"),
            unit="ops",
            width=8,
            description="rows or bytes: the load is high. seconds: it is low, or Postgres is so slow that windows wait. flush: a "
            "stop.",
        )
    )
    board.with_panel(
        graph(
            "Records in a batch",
            *quantiles("stream_batch_rows", WORKER, of="batches")[:2],
            unit="short",
            width=8,
            description="Larger batches cost less a row.",
        )
    )
    board.with_panel(
        graph(
            "How full is the buffer?",
            Query(f"stream_buffer_bytes{{{WORKER}}} / stream_buffer_bytes_max{{{WORKER}}}", "{{instance}}"),
            unit="percentunit",
            width=8,
            limit=1,
            top=1,
            description="Memory of records that wait to be written, as a share of BUFFER_BYTES_MAX. At 100 % fetching waits for "
            "Postgres.",
        )
    )
    board.with_panel(
        graph(
            "What waits in hand, by partition?",
            Query(f"stream_partition_buffered_records{{{OF_WORKER_AND_PARTITION}}}", "{{instance}}, partition {{partition}}"),
            unit="short",
            width=8,
            description="Records fetched and not yet written.",
        )
    )
    board.with_panel(
        states(
            "Which partitions wait?",
            Query(
                f"stream_partition_fetch_paused{{{OF_WORKER_AND_PARTITION}}} + 2 * stream_partition_stopped",
                "{{instance}}, partition {{partition}}",
            ),
            names={
                0: ("flows", "green"),
                1: ("waits for Postgres", "yellow"),
                2: ("waits for a person", "red"),
                3: ("waits for a person", "red"),
            },
            width=8,
            description="Fetching waits for writing while Postgres is slow or away. The log line partition_stopped says what a "
            "person has to do.",
        )
    )
    board.with_panel(
        graph(
            "Does the event loop keep up?",
            *quantiles("stream_event_loop_delay_seconds", WORKER, of="wake-ups")[1:],
            unit="s",
            width=8,
            description="How late it wakes. Above a second or so heartbeats are late too: the worker has too little CPU.",
        )
    )
    board.with_panel(
        graph(
            "How often do partitions change hands?",
            Query(f"sum by (instance) (increase(stream_rebalances_total{{{WORKER}}}[15m]))", "{{instance}} assignments"),
            Query(f"sum(increase(stream_claims_total{{{WORKER}}}[15m]))", "claims"),
            Query(f"sum(increase(stream_writes_fenced_total{{{WORKER}}}[15m]))", "writes fenced"),
            unit=COUNT,
            width=8,
            description="In the quarter of an hour before. Each worker that comes or goes is one assignment for all. A fenced "
            "write came from a worker that had been silent for too long.",
        )
    )
    board.with_panel(
        graph(
            "How long does a change of hands take?",
            *quantiles("stream_rebalance_seconds", WORKER, of="changes")[:2],
            unit="s",
            width=8,
            description="From partitions taken back to the next assignment; what was in hand is written meanwhile.",
        )
    )
    board.with_panel(
        states(
            "Does the worker reach both sides?",
            Query(f"stream_ready{{{WORKER}}}", "{{instance}}: {{dependency}}"),
            Query("monitor_ready", "{{instance}}: {{dependency}}"),
            names=ANSWERS,
            width=8,
            description="Whether each dependency answers, as workers and monitor find it.",
        )
    )


def _postgres(board: Dashboard) -> None:
    board.with_row(row("Postgres"))
    board.with_panel(
        heat(
            "From sent to row",
            Query("sum by (le) (increase(stream_sent_to_written_seconds_bucket[$__rate_interval]))", "{{le}}"),
            unit="s",
            description="How many rows took how long from sent (SQS) to committed (Postgres).",
        )
    )
    board.with_panel(
        graph(
            "How long do statements take?",
            *quantiles("stream_statement_seconds", WORKER, "result", of="statements")[1:2],
            *quantiles("stream_batch_write_seconds", WORKER, of="whole batches")[1:2],
            unit="s",
            description="99 % took no longer: single statements by how they ended, and whole batches with their repetitions.",
        )
    )
    board.with_panel(
        graph(
            "What does Postgres send back?",
            Query(
                f"sum by (sqlstate_class) (rate(stream_database_retries_total{{{WORKER}}}[$__rate_interval])) > 0",
                "tried again, class {{sqlstate_class}}",
            ),
            Query(
                f"sum(rate(stream_batch_splits_total{{{WORKER}}}[$__rate_interval]))",
                "batches halved to find a row that it refuses",
            ),
            Query(f"sum(rate(stream_duplicates_skipped_total{{{WORKER}}}[$__rate_interval]))", "rows that were there already"),
            unit="ops",
            description="Tried again until it works; a row that is refused becomes a dead letter; what was there already stays "
            "as it is.",
        )
    )
    board.with_panel(
        graph(
            "How far ahead is the newest row?",
            Query(f"clamp_min(max(stream_newest_sent_at_timestamp_seconds{{{WORKER}}}) - time(), 0)", "seconds from now"),
            unit="s",
            description="When a partition was last claimed. As long as it lies ahead, each row is looked up before it is written.",
        )
    )
    board.with_panel(
        graph(
            "Connections",
            Query(f"stream_database_connections{{{WORKER}}}", "{{instance}}"),
            Query(f"stream_database_connections_wanted{{{WORKER}}}", "{{instance}} at most"),
            Query("max(monitor_database_sessions)", "all clients of the server"),
            unit="short",
            description="A worker opens as many as its partitions write at a time, POSTGRES_CONNECTIONS_MAX at most; fewer"
            " where the server gives no more.",
        )
    )


def _process(board: Dashboard) -> None:
    ours = 'job=~"bridge|worker|monitor"'
    board.with_row(row("Processes"))
    board.with_panel(
        graph(
            "CPU",
            Query(f"rate(process_cpu_seconds_total{{{ours}}}[$__rate_interval])", "{{instance}}"),
            unit="percentunit",
            width=8,
            description="Cores in use. A worker's Python uses one; librdkafka's and Tink's own threads come on top.",
        )
    )
    board.with_panel(
        graph(
            "Memory",
            Query(f"process_resident_memory_bytes{{{ours}}}", "{{instance}}"),
            unit="bytes",
            width=8,
            description="Resident. Bounded by BUFFER_BYTES_MAX and what is being fetched; a line that only climbs is a leak.",
        )
    )
    board.with_panel(
        graph(
            "Open files",
            Query(f"process_open_fds{{{ours}}} / process_max_fds{{{ours}}}", "{{instance}}"),
            unit="percentunit",
            width=8,
            limit=0.8,
            top=1,
            description="As a share of what the process may open.",
        )
    )
    board.with_panel(
        listing(
            "Which version runs where?",
            Query("bridge_build_info or stream_build_info or monitor_build_info"),
            unit="none",
            width=8,
            columns={"job": "job", "instance": "instance", "version": "version"},
            description="One line a process.",
        )
    )
    board.with_panel(
        graph(
            "Since when do they run?",
            Query(f"time() - process_start_time_seconds{{{ours}}}", "{{instance}}"),
            unit="s",
            width=16,
            description="A line that falls to 0 is a start.",
        )
    )
