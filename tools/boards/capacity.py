"""The board for planning: what a worker does, what it costs, how much room is left, and what to scale next."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.boards import panels
from tools.boards.panels import COUNT, Query, graph, number, row

FINISHED = "sum(rate(stream_rows_written_total[$__rate_interval]))"
INCOMING = "sum(rate(bridge_messages_received_total[$__rate_interval]))"
BUSIEST_WORKER = 'max(rate(process_cpu_seconds_total{job="worker"}[$__rate_interval]))'


def board() -> Dashboard:
    """The board."""
    return (
        panels.board("capacity", "capacity", "Rows a second by worker and by CPU second, headroom, and what to scale next.")
        .with_panel(
            number(
                "Rows per second",
                Query(FINISHED),
                unit="rowsps",
                width=4,
                description="All workers.",
            )
        )
        .with_panel(
            number(
                "Rows per CPU second",
                Query(f'{FINISHED} / sum(rate(process_cpu_seconds_total{{job="worker"}}[$__rate_interval]))'),
                unit=COUNT,
                width=4,
                description="What one second of a core is good for, in the workers. Low while little comes: small batches cost "
                "more a row.",
            )
        )
        .with_panel(
            number(
                "Headroom of the busiest worker",
                Query(f"1 - clamp_max({BUSIEST_WORKER}, 1)"),
                unit="percentunit",
                width=4,
                good_from=0.2,
                decimals=0,
                description="The share of a core that the busiest worker leaves. At 0 %: start more workers, up to one for each "
                "partition.",
            )
        )
        .with_panel(
            number(
                "Headroom of connections",
                Query("1 - max(monitor_database_sessions) / max(monitor_database_sessions_max)"),
                unit="percentunit",
                width=4,
                good_from=0.2,
                decimals=0,
                description="Connections that Postgres still has for all its clients.",
            )
        )
        .with_panel(
            number(
                "Partitions per worker",
                Query('count(max by (topic, partition) (monitor_partition_log_end_offset)) / (sum(up{job="worker"}) > 0)'),
                unit="none",
                width=4,
                good_from=1,
                decimals=1,
                description="Below 1 some workers have nothing to do: the topic needs more partitions before more workers help. "
                "No data: no worker answers.",
            )
        )
        .with_panel(
            number(
                "Until all is caught up",
                Query(f"(sum(topic_partition:lag_records:max) + max(bridge_queue_visible_messages)) / clamp_min({FINISHED}, 1)"),
                unit="s",
                width=4,
                decimals=0,
                description="What waits in SQS and Kafka, at the present rate, if nothing else came.",
            )
        )
        .with_row(row("What limits it?"))
        .with_panel(
            graph(
                "CPU by process",
                Query('rate(process_cpu_seconds_total{job=~"bridge|worker|monitor"}[$__rate_interval])', "{{instance}}"),
                unit="percentunit",
                limit=1,
                description="A worker at 100 % is the limit: more workers. A bridge at 100 %: more bridges. Both low and lag: "
                "Postgres or Kafka.",
            )
        )
        .with_panel(
            graph(
                "Is Postgres the limit?",
                Query("avg by (instance) (stream_partition_fetch_paused)", "{{instance}} waits for Postgres"),
                Query("sum by (instance) (rate(stream_batch_build_seconds_sum[$__rate_interval]))", "{{instance}} builds"),
                Query("max by (instance) (stream_buffer_bytes / stream_buffer_bytes_max)", "{{instance}} buffer"),
                unit="percentunit",
                top=1,
                description="The share of a worker's partitions whose fetching waits for writing, seconds of building in each "
                "second, and how full its buffer is. It waits and builds little: a faster Postgres helps, more workers don't.",
            )
        )
        .with_panel(
            graph(
                "In and out",
                Query(INCOMING, "received from SQS"),
                Query(FINISHED, "written as rows"),
                unit="recps",
                width=8,
                description="Received above written for long: lag grows.",
            )
        )
        .with_panel(
            graph(
                "Bytes through the bridge",
                Query("sum by (instance) (rate(bridge_forwarded_bytes_total[$__rate_interval]))", "{{instance}}"),
                unit="Bps",
                width=8,
                description="Bodies forwarded a second.",
            )
        )
        .with_panel(
            graph(
                "Cost of a row",
                Query(
                    "sum by (step) (rate(stream_build_step_seconds_total[$__rate_interval]))"
                    f" / on () group_left () ({FINISHED} > 0)",
                    "{{step}}",
                ),
                Query(
                    f'sum(rate(process_cpu_seconds_total{{job="worker"}}[$__rate_interval])) / ({FINISHED} > 0)',
                    "all CPU of the workers",
                ),
                unit="s",
                width=8,
                description="CPU seconds a row: by step of building, and all that the workers use.",
            )
        )
        .with_row(row("What grows?"))
        .with_panel(
            graph(
                "Tables",
                Query("max by (table) (monitor_table_bytes)", "{{table}}"),
                unit="bytes",
                width=8,
                description="On disk, indexes included.",
            )
        )
        .with_panel(
            graph(
                "Memory",
                Query('process_resident_memory_bytes{job=~"bridge|worker|monitor"}', "{{instance}}"),
                Query("sum by (instance) (stream_partition_buffered_bytes)", "{{instance}}: records in hand"),
                Query("sum by (instance) (bridge_in_flight_bytes)", "{{instance}}: messages in hand"),
                unit="bytes",
                width=8,
                description="Resident, and what is in hand of it: bounded by BUFFER_BYTES_MAX and BRIDGE_IN_FLIGHT_BYTES_MAX.",
            )
        )
        .with_panel(
            graph(
                "Connections to Postgres",
                Query("sum(stream_database_connections)", "workers"),
                Query("max(monitor_database_sessions)", "all clients"),
                Query("max(monitor_database_sessions_max)", "max_connections"),
                unit="short",
                width=8,
                description="Each further worker takes up to POSTGRES_CONNECTIONS_MAX.",
            )
        )
    )
