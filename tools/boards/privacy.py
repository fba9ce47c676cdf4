"""The board for the operator and the privacy officer: what did not become a row, and who may link or open what."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.boards import panels
from tools.boards.panels import COUNT, Query, graph, listing, number, row


def board() -> Dashboard:
    """The board."""
    return (
        panels.board("privacy", "dead letters and privacy", "What did not become a row, and why; keys in use, and values revealed.")
        .with_row(row("Dead letters"))
        .with_panel(
            number(
                "Share of dead letters",
                Query("pipeline:dead_letters:ratio10m"),
                unit="percentunit",
                bad_from=0.01,
                decimals=2,
                width=4,
                description="Of the records of the last ten minutes. Above 1 % is a ticket, above 20 % a page.",
            )
        )
        .with_panel(
            number(
                "Dead letters in the time shown",
                Query("sum(increase(stream_dead_letters_total[$__range]))"),
                unit=COUNT,
                width=4,
                description="Sealed to the operator's key in the table dead_letters.",
            )
        )
        .with_panel(
            number(
                "Open dead letters",
                Query("sum(max by (reason) (monitor_open_dead_letters))"),
                unit=COUNT,
                width=4,
                description="Those without a resolution, however old: work for the operator, `dead-letters replay` or `discard`.",
            )
        )
        .with_panel(
            number(
                "Records with unknown keys",
                Query("sum(increase(stream_records_with_extra_keys_total[$__range]))"),
                unit=COUNT,
                width=4,
                description="In the time shown. They became rows; the keys that no field declares were ignored. A sender may be "
                "about to change.",
            )
        )
        .with_panel(
            number(
                "Refused by Kafka",
                Query("sum(increase(bridge_messages_refused_total[$__range]))"),
                unit=COUNT,
                bad_from=1,
                width=4,
                description="Too large for the topic, in the time shown; they stay in SQS for the queue's own dead-letter queue.",
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
                width=4,
                description="Removed by the topic's retention before they were read, or by compaction, in the time shown.",
            )
        )
        .with_panel(
            graph(
                "Why do records not become rows?",
                Query("sum by (reason) (rate(stream_dead_letters_total[$__rate_interval])) > 0", "{{reason}}"),
                unit="recps",
                stacked=True,
                values=True,
                nothing="every record becomes a row",
                description="Dead letters by reason. `login-stream dead-letters list` gives message ids and times to ask "
                "the sender about.",
            )
        )
        .with_panel(
            graph(
                "Which dead letters are open?",
                Query("max by (reason) (monitor_open_dead_letters) > 0", "{{reason}}"),
                unit="short",
                stacked=True,
                values=True,
                nothing="none is open",
                description="Without a resolution, by reason.",
            )
        )
        .with_panel(
            graph(
                "How long have dead letters been open?",
                Query("max by (reason) (monitor_oldest_open_dead_letter_seconds) > 0", "{{reason}}"),
                unit="s",
                description="The oldest of each reason; after a day somebody is told. Nothing but a person closes them.",
            )
        )
        .with_panel(
            graph(
                "Do messages come again with other content?",
                Query("sum(increase(stream_duplicates_differing_total[$__rate_interval]))", "with other content"),
                Query("sum(increase(stream_duplicates_skipped_total[$__rate_interval]))", "all that came again"),
                unit=COUNT,
                description="The row that is there stays. Other content under the id of a message that is there: the log line "
                "duplicates_differ names the ids.",
            )
        )
        .with_panel(
            graph(
                "What do rows hold less than their records?",
                Query(
                    "sum by (field, reduction) (rate(stream_values_reduced_total[$__rate_interval])) > 0",
                    "{{field}}: {{reduction}}",
                ),
                unit="recps",
                nothing="nothing is left off",
                description="Values that were stored with something left off, by field: a port, a zone id or other addresses "
                "beside an address, a version's build or a part that is too high, an id that says that there is none. A new line: "
                "a sender has changed how it writes.",
            )
        )
        .with_row(row("Keys and reveals"))
        .with_panel(
            listing(
                "Which keys are in use?",
                Query("count by (keyset, key_id, primary) (stream_masking_key_info)"),
                unit="none",
                width=8,
                columns={"keyset": "keyset", "key_id": "key", "primary": "primary", "Value": "workers"},
                description="By how many workers. The primary key masks, the others are there to reveal. Two primary ones of a "
                "keyset: workers whose tokens don't link.",
            )
        )
        .with_panel(
            graph(
                "How many values are revealed?",
                Query("max by (field) (increase(monitor_revealed_tokens_total[1h]))", "{{field}}: values"),
                Query("max by (field) (increase(monitor_reveals_total[1h]))", "{{field}}: calls"),
                unit=COUNT,
                width=16,
                limit=100,
                description="In the hour before, by field; above the line somebody is told. The table reveal_audit says who and "
                "why.",
            )
        )
    )
