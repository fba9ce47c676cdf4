"""Our tokens against RFC 5297 and RFC 2104, through other implementations (pyca/cryptography, the standard library).

Tink takes 64-byte AES-SIV keys only and the RFC's vectors have 32-byte ones, so they can't go through Tink itself: the other
implementation is held against the RFC's vector, and Tink against the other implementation.
"""

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from login_records import masking_keyset
from tink import KeysetHandle, cleartext_keyset_handle, prf
from tink.proto import aes_siv_pb2, common_pb2, hmac_prf_pb2, tink_pb2

from stream_app.ip_address import pack
from stream_app.masking.masker import Masker
from stream_app.masking.policy import parse_methods

KEY_ID = 0x01020304
KEY = bytes(range(64))


def imported(kind: str, key: bytes, output_prefix: int) -> KeysetHandle:
    """A keyset of this one key."""
    keyset = tink_pb2.Keyset(primary_key_id=KEY_ID)
    entry = keyset.key.add(status=tink_pb2.ENABLED, key_id=KEY_ID, output_prefix_type=output_prefix)
    entry.key_data.type_url = f"type.googleapis.com/google.crypto.tink.{kind}"
    entry.key_data.value = key
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    return cleartext_keyset_handle.from_keyset(keyset)


def fixed_masker(methods: str = "") -> Masker:
    aes_siv = imported("AesSivKey", aes_siv_pb2.AesSivKey(key_value=KEY).SerializeToString(), tink_pb2.TINK)
    parameters = hmac_prf_pb2.HmacPrfParams(hash=common_pb2.SHA256)
    hmac_prf = imported(
        "HmacPrfKey", hmac_prf_pb2.HmacPrfKey(params=parameters, key_value=KEY[:32]).SerializeToString(), tink_pb2.RAW
    )
    return Masker(parse_methods(methods), keyset=masking_keyset(aes_siv), hmac_keyset=hmac_prf.primitive(prf.PrfSet))


def test_the_other_implementation_gives_what_rfc_5297_appendix_a_1_says() -> None:
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    plain = bytes.fromhex("112233445566778899aabbccddee")

    assert AESSIV(key).encrypt(plain, [associated]).hex() == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


@pytest.mark.parametrize(
    ("field", "value", "encrypted"),
    [
        ("ip", pack("203.0.113.9"), pack("203.0.113.9")),
        ("ip", pack("2001:db8::1"), pack("2001:db8::1")),
        ("device_id", b"593-47-5928", b"593-47-5928\x80\0\0\0\0"),
        ("device_id", b"i" * 16, b"i" * 16 + b"\x80" + bytes(15)),
        ("device_id", b"i" * 15, b"i" * 15 + b"\x80"),
        ("device_id", b"", b"\x80" + bytes(15)),
    ],
)
def test_a_token_is_the_keys_prefix_and_aes_siv_of_the_padded_value_under_the_fields_name(
    field: str, value: bytes, encrypted: bytes
) -> None:
    (token,) = fixed_masker().mask(field, [value])

    expected = b"\x01\x01\x02\x03\x04" + AESSIV(KEY).encrypt(encrypted, [field.encode()])
    assert token == base64.urlsafe_b64encode(expected).decode().rstrip("=")


def test_an_hmac_token_is_the_keys_prefix_and_hmac_of_field_and_value() -> None:
    (token,) = fixed_masker("device_id=hmac").mask("device_id", [b"593-47-5928"])

    expected = b"\x01\x01\x02\x03\x04" + hmac.digest(KEY[:32], b"device_id\x00593-47-5928", "sha256")
    assert token == base64.urlsafe_b64encode(expected).decode().rstrip("=")


def test_tokens_never_change_from_one_version_to_the_next() -> None:
    """A change here cuts every table in two: the same device would have another token from then on."""
    assert fixed_masker().mask("ip", [pack("203.0.113.9")]) == ["AQECAwSU-QcfyFIlLL1AKO0QvslifYNOgw"]
    assert fixed_masker().mask("device_id", [b"593-47-5928"]) == ["AQECAwTYXzWhCmmmR6yRimiZERPPR70Y-ltqUvbdjWwLPIuDeA"]
    assert fixed_masker("ip=hmac").mask("ip", [pack("203.0.113.9")]) == ["AQECAwRl6_ClTzxpcBAfZrINX51frSshON3AX-x4ZRUwc4A0jA"]
