import base64

import pytest
from login_records import hmac_handle, masker, masking_handle, masking_keyset
from structlog.testing import capture_logs
from tink import KeysetHandle, cleartext_keyset_handle
from tink.proto import tink_pb2

from stream_app.ip_address import pack
from stream_app.masking import keysets
from stream_app.masking.masker import NULL_TEXT, Masker
from stream_app.masking.policy import parse_methods
from stream_app.masking.tokens import COLUMN_CHARACTERS, TokenError

IPS = [pack("203.0.113.9"), pack("2001:db8::1")]
DEVICES = [b"593-47-5928", b"", b"i" * 128, "é😀".encode(), "\x80".encode(), b"i\0\0", b"i" * 15, b"i" * 16]


def rotated_keyset() -> KeysetHandle:
    """The old key and a new, primary one."""
    old = masking_handle()
    new = keysets.new_secret_keyset(keysets.MASKING_TEMPLATE)
    keyset = tink_pb2.Keyset()
    keyset.CopyFrom(old._keyset)
    keyset.key.extend(new._keyset.key)
    keyset.primary_key_id = new._keyset.primary_key_id
    return cleartext_keyset_handle.from_keyset(keyset)


def test_masked_twice_is_equal_and_other_values_are_not() -> None:
    for methods in ("", "ip=hmac,device_id=hmac"):
        once, again = masker(methods).mask("device_id", DEVICES), masker(methods).mask("device_id", DEVICES)
        assert once == again
        assert len(set(once)) == len(DEVICES)


@pytest.mark.parametrize("methods", ["ip=aes-siv,device_id=aes-siv", "ip=hmac,device_id=hmac"])
def test_other_field_other_token(methods: str) -> None:
    assert set(masker(methods).mask("ip", IPS)).isdisjoint(masker(methods).mask("device_id", IPS))


def test_tokens_say_their_key_fit_their_column_and_have_no_odd_character() -> None:
    for methods, handle in (("", masking_handle()), ("ip=hmac,device_id=hmac", hmac_handle())):
        for token in [*masker(methods).mask("ip", IPS), *masker(methods).mask("device_id", DEVICES)]:
            assert len(token) <= COLUMN_CHARACTERS
            assert token.replace("-", "").replace("_", "").isalnum()
            content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            assert content[:5] == b"\x01" + handle.keyset_info().primary_key_id.to_bytes(4, "big")


def test_a_token_tells_little_of_its_values_length() -> None:
    lengths = {len(token) for token in masker().mask("device_id", [b"i" * length for length in range(16)])}
    assert len(lengths) == 1
    assert len({len(token) for token in masker().mask("ip", [pack("1.1.1.1"), pack("255.255.255.255")])}) == 1


def test_reveal_gives_the_canonical_text() -> None:
    tokens = masker().mask("ip", [pack("203.0.113.9"), pack("2001:0DB8::0001"), pack("::ffff:203.0.113.9")])
    assert [masker().reveal("ip", token) for token in tokens] == ["203.0.113.9", "2001:db8::1", "203.0.113.9"]
    assert [masker().reveal("device_id", token).encode() for token in masker().mask("device_id", DEVICES)] == DEVICES


@pytest.mark.parametrize("place", [0, 1, 5, 6, 20, -2])
def test_a_changed_token_is_refused_and_not_repeated(place: int) -> None:
    token = masker().mask("ip", IPS)[0]
    letter = "A" if token[place] != "A" else "B"
    changed = token[:place] + letter + token[place:][1:]

    with pytest.raises(TokenError) as caught:
        masker().reveal("ip", changed)
    assert changed not in str(caught.value)
    assert token not in str(caught.value)


def test_a_token_of_another_field_is_refused() -> None:
    token = masker().mask("ip", IPS)[0]

    with pytest.raises(TokenError, match="another field than device_id"):
        masker().reveal("device_id", token)


def test_a_token_of_a_key_that_is_not_here_says_so() -> None:
    stranger = masking_keyset(keysets.new_secret_keyset(keysets.MASKING_TEMPLATE))
    token = Masker(parse_methods(""), keyset=stranger).mask("ip", IPS)[0]

    with pytest.raises(
        TokenError, match=rf"key {next(iter(stranger.key_ids))}, which the keyset in MASKING_KEYSET_FILE does not hold"
    ):
        masker().reveal("ip", token)


def test_after_a_rotation_old_and_new_tokens_open() -> None:
    rotated = Masker(parse_methods(""), keyset=masking_keyset(rotated_keyset()))
    old, new = masker().mask("ip", IPS), rotated.mask("ip", IPS)

    assert set(old).isdisjoint(new)
    assert [rotated.reveal("ip", token) for token in (*old, *new)] == ["203.0.113.9", "2001:db8::1"] * 2


@pytest.mark.parametrize("text", ["203.0.113.9", "", "é", "A" * 40, "!" * 40, "AQ", "AQAAAAA"])
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(TokenError, match=r"^not a token: expected base64url text") as caught:
        masker().reveal("ip", text)
    assert not text or text not in str(caught.value)


def test_rotation_as_the_old_tables_have_it() -> None:
    rotating = masker("ip=rotate,device_id=rotate")

    assert rotating.mask("device_id", [b"593-47-5928"]) == ["7-5928593-4"]
    assert rotating.mask("ip", [pack("203.0.113.9")]) == [".113.9203.0"]
    for value in ("593-47-5928", "ab", "a", "abc", "é😀x"):
        assert rotating.reveal("device_id", rotating.mask("device_id", [value.encode()])[0]) == value


def test_truncate_and_redact() -> None:
    assert masker("ip=truncate").mask("ip", IPS) == ["203.0.113.0/24", "2001:db8::/48"]
    assert masker("ip=redact,device_id=redact").mask("device_id", DEVICES) == [NULL_TEXT] * len(DEVICES)


@pytest.mark.parametrize("method", ["hmac", "truncate", "redact"])
def test_a_one_way_method_has_no_way_back(method: str) -> None:
    one_way = masker(f"ip={method}")

    with pytest.raises(TokenError, match=f"ip is masked by {method}: there is no way back"):
        one_way.reveal("ip", one_way.mask("ip", IPS)[0])


@pytest.mark.parametrize("field", ["user_id", "IP", "", "nonsense"])
def test_only_masked_fields_are_revealed(field: str) -> None:
    with pytest.raises(TokenError, match="the masked fields are ip, device_id"):
        masker().reveal(field, "AQ")


def test_masking_without_a_secret_is_said_at_the_start() -> None:
    with capture_logs() as logs:
        Masker.load(parse_methods("ip=rotate,device_id=redact"), keyset_file=None)

    assert [(entry["event"], entry["field"], entry["log_level"]) for entry in logs] == [
        ("field_masked_without_secret", "ip", "warning")
    ]


@pytest.mark.parametrize("method", ["aes-siv", "hmac"])
def test_a_method_without_its_keyset_masks_nothing(method: str) -> None:
    with pytest.raises(ValueError, match="needs a keyset"):
        Masker(parse_methods(f"ip={method},device_id=redact"))


@pytest.mark.parametrize("methods", ["", "ip=hmac,device_id=hmac", "ip=rotate,device_id=rotate", "ip=truncate,device_id=redact"])
def test_an_empty_column_stays_empty(methods: str) -> None:
    assert masker(methods).mask("ip", []) == masker(methods).mask("device_id", []) == []
