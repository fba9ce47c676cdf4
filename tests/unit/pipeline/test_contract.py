import json

import pytest

from pipeline.contract import KEY_BYTES_MAX, record_key

MESSAGE_ID = "5fea7756-0ea4-451a-a703-a558b933e274"


def test_a_login_has_its_user_as_key() -> None:
    assert record_key(b'{"ip": 1, "user_id": "u\xc3\xa9"}', MESSAGE_ID) == "ué".encode()


def test_a_fifo_message_has_its_group_as_key() -> None:
    assert record_key(b'{"user_id": "u"}', MESSAGE_ID, "group") == b"group"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1]",
        b'{"user_id": 17}',
        b'{"user_id": ""}',
        b'{"foo": "bar"}',
        b"\xff\xfe",
        b'{"user_id": "\\ud800"}',
        b"[" * 100_000,
        b'{"x": ' + b"[" * 100_000,
        json.dumps({"user_id": "u" * (KEY_BYTES_MAX + 1)}).encode(),
    ],
)
def test_any_other_body_has_its_message_id_as_key(body: bytes) -> None:
    assert record_key(body, MESSAGE_ID) == MESSAGE_ID.encode()
