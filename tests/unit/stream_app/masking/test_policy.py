import pytest

from pipeline.errors import SettingsError
from stream_app.masking.methods import MaskingMethod
from stream_app.masking.policy import parse_methods


@pytest.mark.parametrize(
    ("text", "ip", "device_id"),
    [
        ("", "aes-siv", "aes-siv"),
        (" , ", "aes-siv", "aes-siv"),
        ("ip=hmac", "hmac", "aes-siv"),
        ("ip=hmac,device_id=redact", "hmac", "redact"),
        (" device_id = rotate ,ip= truncate,", "truncate", "rotate"),
    ],
)
def test_the_setting_goes_over_the_defaults(text: str, ip: str, device_id: str) -> None:
    assert parse_methods(text).methods == {"ip": MaskingMethod(ip), "device_id": MaskingMethod(device_id)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("user_id=redact", "the masked fields are ip, device_id"),
        ("hmac", "expected entries such as ip=hmac"),
        ("=hmac", "the masked fields are ip, device_id"),
        ("ip", "ip can be masked by aes-siv, hmac, rotate, truncate, redact"),
        ("ip=", "ip can be masked by"),
        ("ip=none", "ip can be masked by"),
        ("ip=HMAC", "ip can be masked by"),
        ("ip=hmac,ip=hmac", "ip is named twice"),
        ("device_id=truncate", "device_id can be masked by aes-siv, hmac, rotate, redact"),
        ("ip=hmac;device_id=hmac", "ip can be masked by"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=r"^MASKING_METHODS: ") as caught:
        parse_methods(text)
    assert problem in str(caught.value)


def test_no_setting_leaves_a_personal_field_as_it_is() -> None:
    for method in ("none", "plain", "raw", "off", "null"):
        with pytest.raises(SettingsError):
            parse_methods(f"ip={method}")
