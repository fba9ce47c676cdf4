import pytest

from pipeline.errors import PoisonError
from stream_app.ip_address import canonical_text, is_plain, network_text, pack, pack_all, read
from stream_app.reductions import Reduction

OTHERS, PORT, ZONE = Reduction.OTHER_ADDRESSES, Reduction.PORT, Reduction.ZONE


@pytest.mark.parametrize(
    "spellings",
    [
        ("2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:DB8:0:0::1", "2001:db8::0.0.0.1"),
        ("203.0.113.9", "::ffff:203.0.113.9", "::FFFF:CB00:7109", "0:0:0:0:0:ffff:cb00:7109"),
        ("::", "0:0:0:0:0:0:0:0", "::0.0.0.0"),
    ],
)
def test_spellings_of_one_address_meet(spellings: tuple[str, ...]) -> None:
    packed = {pack(text) for text in spellings}

    assert len(packed) == 1
    assert canonical_text(packed.pop()) == spellings[0]


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "224.0.0.1", "241.6.88.151", "255.255.255.255", "::1", "fe80::1", "ff02::1", "64:ff9b::1"]
)
def test_any_valid_address_is_taken(text: str) -> None:
    assert canonical_text(pack(text)) == text


@pytest.mark.parametrize(
    "text", ["", " 1.2.3.4", "1.2.3.4\0", "01.2.3.4", "010.0.0.1", "127.1", "fe80::1%eth0", "1.2.3.4:80", "é", "\ud800"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert pack_all(["203.0.113.9", text]) is None
    with pytest.raises(PoisonError) as caught:
        pack(text)
    assert str(caught.value) == "invalid_ip"


@pytest.mark.parametrize(
    ("text", "address", "left_off"),
    [
        ("203.0.113.9", "203.0.113.9", set()),
        ("[2001:db8::1]", "2001:db8::1", set()),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9", {OTHERS}),
        ("203.0.113.9,10.0.0.1, unknown", "203.0.113.9", {OTHERS}),
        ("203.0.113.9 ,", "203.0.113.9", {OTHERS}),
        ("203.0.113.9:50412", "203.0.113.9", {PORT}),
        ("203.0.113.9:0", "203.0.113.9", {PORT}),
        ("[2001:db8::1]:443", "2001:db8::1", {PORT}),
        ("[::ffff:203.0.113.9]:65535", "203.0.113.9", {PORT}),
        ("2001:db8::1:443", "2001:db8::1:443", set()),
        ("fe80::1%en0", "fe80::1", {ZONE}),
        ("fe80::1%25en0", "fe80::1", {ZONE}),
        ("::ffff:203.0.113.9%en0", "203.0.113.9", {ZONE}),
        ("[fe80::1%25en0]:443, 203.0.113.9:80", "fe80::1", {OTHERS, PORT, ZONE}),
    ],
)
def test_what_proxies_write_around_an_address_comes_off(text: str, address: str, left_off: set[Reduction]) -> None:
    assert read(text) == (pack(address), frozenset(left_off))


def test_what_is_not_plain_is_no_address_by_itself() -> None:
    assert is_plain("203.0.113.9")
    assert is_plain("2001:db8::1:443")
    for text in ("203.0.113.9, 10.0.0.1", "203.0.113.9:80", "[2001:db8::1]", "fe80::1%en0"):
        assert not is_plain(text)


def test_networks() -> None:
    assert network_text(pack("203.0.113.77")) == "203.0.113.0/24"
    assert network_text(pack("2001:db8:1234:5678::9")) == "2001:db8:1234::/48"


def test_a_column_may_mix_both_kinds_and_be_empty() -> None:
    assert pack_all(["203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9"]) == [
        pack("203.0.113.9"),
        pack("2001:db8::1"),
        pack("203.0.113.9"),
    ]
    assert pack_all([]) == []
