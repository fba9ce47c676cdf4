"""The board for whoever is called: is data flowing, how late is it, where is it stuck, is anything being lost. One screen."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.boards import panels
from tools.boards.panels import COUNT, Query, graph, listing, number, quantiles

FINISHED = (
    "sum(rate(stream_rows_written_total[$__rate_interval]))"
    " + sum(rate(stream_dead_letters_total[$__rate_interval]))"
    " + sum(rate(stream_duplicates_skipped_total[$__rate_interval]))"
)
GRAPH_HEIGHT = 9
LATE_FROM = Query("pipeline:freshness_objective:seconds", "late from here on")


def board() -> Dashboard:
    """The board."""
    p50, p99, p999 = quantiles("stream_sent_to_written_seconds", of="the rows")
    return (
        panels.board("overview", "overview", "Is data flowing, how late is it, where is it stuck, is anything being lost?")
        .with_panel(
            number(
                "How late is data now?",
                Query("pipeline:waiting_seconds:max"),
                unit="s",
                decimals=1,
                description="Age of the oldest message that is in SQS in the bridge's hands, or in Kafka, and not yet in "
                "Postgres. 0 when nothing waits. Grows while nobody writes, whichever process is dead.",
            )
        )
        .with_panel(
            number(
                "Lateness budget left",
                Query("1 - avg_over_time(pipeline:late:bool[30d]) / pipeline:late_allowed:ratio"),
                unit="percentunit",
                good_from=0.1,
                decimals=0,
                description="What is left of the time in which records may be late (FRESHNESS_OBJECTIVE_RATIO over 30 days, or "
                "as long as Prometheus remembers). Below 0: the objective is missed.",
            )
        )
        .with_panel(
            number(
                "Rows per second",
                Query("sum(rate(stream_rows_written_total[$__rate_interval]))"),
                unit="rowsps",
                description="Rows written to user_logins, all workers.",
            )
        )
        .with_panel(
            number(
                "Waiting in Kafka",
                Query("sum(topic_partition:lag_records:max)"),
                unit=COUNT,
                description="Records: log end less position in Postgres, over all partitions, whether a worker holds them or none.",
            )
        )
        .with_panel(
            number(
                "Who answers?",
                Query('sum by (job) (up{job=~"bridge|worker|monitor"})', "{{job}}"),
                unit="none",
                good_from=1,
                description="Processes that answer Prometheus, by kind.",
            )
        )
        .with_panel(
            number(
                "Dead letters",
                Query("sum(increase(stream_dead_letters_total[$__range]))"),
                unit=COUNT,
                description="Records that can't become rows, in the time shown. The board *dead letters and privacy* has the "
                "reasons.",
            )
        )
        .with_panel(
            number(
                "Records lost",
                Query(
                    "sum(increase(stream_records_lost_total[$__range])) + sum(increase(stream_records_compacted_total[$__range]))"
                ),
                unit=COUNT,
                bad_from=1,
                description="Records that Kafka's retention or compaction removed, in the time shown.",
            )
        )
        .with_panel(
            number(
                "Alerts that fire",
                Query('count(ALERTS{alertstate="firing",severity!="none"}) or 0 * count(ALERTS{alertname="Watchdog"})'),
                unit="none",
                bad_from=1,
                description="Pages and tickets that fire now; no data when Prometheus evaluates no rules.",
            )
        )
        .with_panel(
            graph(
                "Where does it stop?",
                Query("sum(rate(bridge_messages_received_total[$__rate_interval]))", "received from SQS"),
                Query("sum(rate(bridge_messages_forwarded_total[$__rate_interval]))", "acknowledged by Kafka"),
                Query('sum(rate(bridge_messages_deleted_total{result="ok"}[$__rate_interval]))', "deleted from SQS"),
                Query("sum(rate(stream_records_received_total[$__rate_interval]))", "fetched by workers"),
                Query(FINISHED, "finished: rows, dead letters, rows that were there"),
                unit="recps",
                height=GRAPH_HEIGHT,
                description="Messages a second by hop. In steady running the lines lie on each other; the first one that drops "
                "is the hop that is stuck.",
            )
        )
        .with_panel(
            graph(
                "How late is it?",
                Query("pipeline:waiting_seconds:max", "the oldest that waits"),
                p50,
                p99,
                p999,
                LATE_FROM,
                unit="s",
                height=GRAPH_HEIGHT,
                description="The oldest record that waits, and the time from sent to row of what was written: half of the rows, "
                "99 % and 99.9 % took no longer than that.",
            )
        )
        .with_panel(
            graph(
                "How much waits where?",
                Query("max(bridge_queue_visible_messages)", "in SQS"),
                Query("sum(bridge_in_flight_messages)", "in the bridges' hands"),
                Query("sum(topic_partition:lag_records:max)", "in Kafka"),
                Query("sum(stream_partition_buffered_records)", "of these, in the workers' hands"),
                unit="short",
                height=GRAPH_HEIGHT,
                width=8,
                description="Messages by place. SQS's own number is an estimate that is asked for twice a minute.",
            )
        )
        .with_panel(
            graph(
                "Which partition is behind?",
                Query("topic_partition:lag_seconds:max", "partition {{partition}}"),
                LATE_FROM,
                unit="s",
                height=GRAPH_HEIGHT,
                width=8,
                description="Age of each partition's oldest record that is not in Postgres. One line above the others: a worker "
                "that is stuck, or a key that is hot. All of them: more comes than is written.",
            )
        )
        .with_panel(
            graph(
                "What is tried again?",
                Query("sum by (dependency) (rate(bridge_backoffs_total[$__rate_interval]))", "bridge: {{dependency}}"),
                Query("sum(rate(bridge_produce_failures_total[$__rate_interval]))", "bridge: records"),
                Query(
                    "sum by (sqlstate_class) (rate(stream_database_retries_total[$__rate_interval])) > 0",
                    "worker: Postgres, class {{sqlstate_class}}",
                ),
                Query("sum(rate(stream_kafka_commit_errors_total[$__rate_interval]))", "worker: Kafka commits"),
                unit="ops",
                height=GRAPH_HEIGHT,
                width=8,
                top=1,
                description="Flat at 0 when all is well. Classes of SQLSTATE: 08 connection, 28 login, 40 conflict, 53 out of "
                "resources, 57 stopping or timed out; tls: a certificate; none: no answer.",
            )
        )
        .with_panel(
            listing(
                "Which alerts fire?",
                Query(
                    "sum by (severity, alertname, job, instance, dependency, partition)"
                    ' (ALERTS{alertstate="firing",severity!="none"})'
                ),
                unit="none",
                width=24,
                height=4,
                nothing="no alert fires",
                columns={
                    "severity": "severity",
                    "alertname": "alert",
                    "job": "job",
                    "instance": "instance",
                    "dependency": "dependency",
                    "partition": "partition",
                },
                description="Pages and tickets. The table at the top of docs/runbook.md says what to do first.",
            )
        )
    )
