"""Why a record can't become a row."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record can't become a row; a closed list, and also the values of the metric's label.

    If several things are wrong, the first counts: the body as a whole, then whether each field is there and a string, then what the
    fields' texts hold, both in the order of the declaration, then the headers.
    """

    EMPTY_BODY = "empty_body"
    """No value (a Kafka tombstone), or nothing but white space."""
    NOT_UTF8 = "not_utf8"
    """The body is not UTF-8, whichever key the bytes stand under."""
    NOT_JSON = "not_json"
    """The body is not JSON; a raw control character inside a string makes it so, and a byte order mark."""
    TOO_DEEP = "too_deep"
    """Nested deeper than the decoder goes (about 1,000 levels)."""
    NOT_AN_OBJECT = "not_an_object"
    """JSON, but a list, a string, a number (of any length), true, false or null."""
    LONE_SURROGATE = "lone_surrogate"
    """Half of a surrogate pair (``\\ud800``): no text. Without a field: it stands in a key, or under one that no field declares."""
    MISSING_KEY = "missing_key"
    """A required field's key is not there."""
    NULL_VALUE = "null_value"
    """A required field is null."""
    WRONG_TYPE = "wrong_type"
    """A field is a number (of any length), a boolean, a list or an object: all fields are strings."""
    EMPTY_VALUE = "empty_value"
    """A required field is "", or nothing but white space."""
    CONTROL_CHARACTER = "control_character"
    """A control character (C0 with NUL, DEL, C1) inside a field's text."""
    TOO_LONG = "too_long"
    """Longer than the field may be."""
    INVALID_IP = "invalid_ip"
    """Neither an IPv4 nor an IPv6 address."""
    INVALID_APP_VERSION = "invalid_app_version"
    """Not one to three numeric parts within their bounds."""
    HEADER_INVALID = "header_invalid"
    """The header ``message-id`` is no UUID or ``sent-at`` no time (or there is neither sent-at nor a Kafka timestamp); the field is
    the header's name."""
    SENT_AT_IMPLAUSIBLE = "sent_at_implausible"
    """The header ``sent-at`` is a time, but too far from the record's Kafka timestamp (or there is none to compare it with)."""
    ROW_REFUSED = "row_refused"
    """Postgres refused the row (SQLSTATE class 22 or 23), alone in its statement; with the field if Postgres named the column."""
