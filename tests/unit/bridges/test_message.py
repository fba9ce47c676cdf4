import pytest
from login_records import MESSAGE_ID, SENT_AT_BOUNDS, SENT_AT_MS, record

from bridges.message import Message, body_bytes, record_headers, record_key, sent_timestamp, trace_context
from stream_app import message_headers

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


@pytest.mark.parametrize(
    ("traceparent", "xray", "expected"),
    [
        (TRACEPARENT, None, TRACEPARENT),
        (TRACEPARENT, XRAY, TRACEPARENT),
        ("user@example.org", None, None),
        (TRACEPARENT + "\n", None, None),
        (None, XRAY, "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"),
        (None, "Root=1-5759e988-bd862e3fe1be46a994272793", None),
        (None, "nonsense", None),
        (None, None, None),
    ],
)
def test_only_a_well_formed_trace_is_passed_on(traceparent: str | None, xray: str | None, expected: str | None) -> None:
    assert trace_context(traceparent, xray) == expected


@pytest.mark.parametrize(
    ("body", "expected"), [("café ✓", "café ✓".encode()), ("a\x00b", b"a\x00b"), ("\ud800", b"\xed\xa0\x80"), ("", b"")]
)
def test_any_body_has_bytes(body: str, expected: bytes) -> None:
    assert body_bytes(body) == expected


def test_headers_hold_what_the_message_has() -> None:
    message = Message("id", "handle", b"{}", sent_at="1795466802698", traceparent=TRACEPARENT)
    assert dict(record_headers(message, b"logins")) == {
        "message-id": b"id",
        "source": b"logins",
        "sent-at": b"1795466802698",
        "traceparent": TRACEPARENT.encode(),
    }
    assert dict(record_headers(Message("id", "handle", b"{}"), b"logins")) == {"message-id": b"id", "source": b"logins"}


def test_the_worker_reads_the_bridges_headers_by_columns() -> None:
    """In another order it would read each record on its own, which is right, and slow."""
    message = Message(MESSAGE_ID, "handle", b"{}", sent_at=str(SENT_AT_MS), traceparent=TRACEPARENT)

    read = message_headers._read_as_bridge_writes([record(b"{}", headers_=record_headers(message, b"logins"))], SENT_AT_BOUNDS)

    assert read is not None
    assert (read.message_ids, read.sent_at_ms) == ([MESSAGE_ID], [str(SENT_AT_MS)])


def test_the_group_is_the_key_where_there_is_one() -> None:
    assert record_key(Message("id", "handle", b'{"user_id": "u"}', group_id="g")) == b"g"
    assert record_key(Message("id", "handle", b'{"user_id": "u"}')) == b"u"
    assert record_key(Message("id", "handle", b"\xed\xa0\x80")) == b"id"


@pytest.mark.parametrize("text", ["0", "1763900000000", "999999999999999"])
def test_what_sqs_says_of_the_time_is_passed_on_for_the_worker_to_judge(text: str) -> None:
    assert sent_timestamp(text) == text


@pytest.mark.parametrize("text", [None, "", "-1", "1.7e12", "1763900000.5", " 1763900000000", "yesterday", "\u0663", "9" * 16])
def test_what_is_no_time_counts_as_not_said(text: str | None) -> None:
    """The bridge calculates with it, and the record is a login all the same: Kafka's timestamp stands in."""
    assert sent_timestamp(text) is None
