"""A body of 1 MiB costs about as much as any other, whatever is in it: nobody can hold the event loop with one."""

import time
from collections.abc import Callable

from login_records import LOGIN, build, login

from pipeline.contract import BODY_BYTES_MAX

ORDINARY = login(user_id="u" * BODY_BYTES_MAX)
RATIO_MAX = 6
"""Deep nesting with half of a surrogate pair at its end takes 4 times as much; what this test is for took 12 to 16 times."""
ATTEMPTS_MAX = 5


def filled(pattern: bytes) -> bytes:
    return pattern * (BODY_BYTES_MAX // len(pattern))


TEXTS = {
    "high_surrogates": rb"\ud800",
    "low_surrogates": rb"\udfff",
    "pairs_and_halves": rb"\ud83d\ude00\ud800",
    "halves_and_letters": rb"\uDBFFa",
    "pairs": rb"\ud83d\ude00",
    "nul_escapes": rb"\u0000",
    "letter_escapes": rb"\u0061",
    "newlines": rb"\n",
    "backslashes": rb"\\",
    "quotes": rb"\"",
    "emoji": "\N{GRINNING FACE}".encode(),
    "wide_blanks": "\u2003".encode(),
    "wide_blank_escapes": rb"\u2003",
    "blanks": b" ",
    "digits": b"9",
    "dots": b"1.",
    "colons": b"1:",
}
VALUES = {
    "digits": b"9" * BODY_BYTES_MAX,
    "fraction": b"0." + b"1" * BODY_BYTES_MAX,
    "exponent": b"1e" + b"9" * BODY_BYTES_MAX,
    "numbers": b"[" + filled(b"1,") + b"1]",
    "fractions": b"[" + filled(b"0.12345678901234567890,") + b"1]",
    "objects": b"[" + filled(b"{},") + b"1]",
    "strings": b"[" + filled(b'"",') + b"1]",
    "deep": b"[" + filled(b"[" * 900 + b"]" * 900 + b",") + b"1]",
    "too_deep": filled(b"[") + filled(b"]"),
    "surrogates": b'"' + filled(rb"\ud800") + b'"',
}


def with_value(field: str, value: bytes) -> bytes:
    return login(**{field: "@@"}).replace(b'"@@"', value)


BODIES = {
    **{
        f"{field} of {name}": with_value(field, b'"' + filled(text) + b'"')
        for name, text in TEXTS.items()
        for field in (*LOGIN, "x")
    },
    **{f"key of {name}": login()[:-1] + b',"' + filled(text) + b'":1}' for name, text in TEXTS.items()},
    **{f"{field} with {name}": with_value(field, value) for name, value in VALUES.items() for field in ("ip", "x")},
    **{f"{name}, cut off": with_value("x", value)[:-1] for name, value in VALUES.items()},
    **{f"{name}, then half of a pair": with_value("x", value)[:-1] + rb',"y":"\udc00"}' for name, value in VALUES.items()},
    **{f"nothing but {name}": value for name, value in VALUES.items()},
    "many keys": login()[:-1] + b"," + b",".join(b'"%d":1' % number for number in range(BODY_BYTES_MAX // 10)) + b"}",
    "one key many times": login()[:-1] + filled(b',"ip":"1.2.3.4"') + b"}",
    "one key with a half many times": login()[:-1] + filled(rb',"ip":"\ud800"') + b"}",
    "white space first": b" " * BODY_BYTES_MAX + login(),
    "white space inside": b"{" + b"\n" * BODY_BYTES_MAX + login()[1:],
    "nothing but white space": filled(b" \r\n\t"),
    "nonsense": filled(b"\x01nonsense"),
    "nothing but quotes": b'"' * BODY_BYTES_MAX,
    "nothing but backslashes": b'"' + b"\\" * BODY_BYTES_MAX,
    "no string closes": b'"' + filled(rb"\ud800"),
    "no UTF-8 at its end": b'"' + b"a" * BODY_BYTES_MAX + b"\xff",
}


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def expect_no_body_to_stand_out(work: Callable[[bytes], object], ordinary: bytes) -> None:
    """Each attempt compares again with an ordinary body, since the machine may have become slower meanwhile."""
    too_slow = dict(BODIES)
    for _ in range(ATTEMPTS_MAX):
        bound = RATIO_MAX * min(cpu_seconds(lambda: work(ordinary)) for _ in range(3))
        too_slow = {name: body for name, body in too_slow.items() if cpu_seconds(lambda body=body: work(body)) > bound}  # type: ignore[misc]
    assert not list(too_slow)


def test_no_body_takes_the_worker_much_longer_than_an_ordinary_one() -> None:
    expect_no_body_to_stand_out(lambda body: build([body]), ORDINARY)
