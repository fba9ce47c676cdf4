import hashlib

import msgspec
import pytest
from login_records import ABSENT, PLACE, dead_letter_handle, login, opener, record, sealer
from tink import hybrid

from pipeline.errors import FatalError
from stream_app.dead_letters import Opener, OriginalLargeRecord, OriginalRecord
from stream_app.large_records import FIRST_BYTES, Excerpt, LargeRecord
from stream_app.masking import keysets

BODIES = [None, b"", b"\xff\x00nonsense", login(), login(ip=ABSENT), b"x" * 1_048_576]


@pytest.mark.parametrize("body", BODIES, ids=["tombstone", "empty", "bytes", "login", "missing", "1_mib"])
def test_what_was_sealed_opens_byte_for_byte(body: bytes | None) -> None:
    source = record(body, 42, headers_=(("message-id", b"\xff"), ("x", b""), ("x", b"2")), timestamp=-1)

    original = opener().open(sealer().seal(PLACE, source), topic="logins", partition=3, offset=42)

    assert isinstance(original, OriginalRecord)
    assert (original.value, original.key, original.timestamp) == (body, b"key", -1)
    assert original.headers == [("message-id", b"\xff"), ("x", b""), ("x", b"2")]
    assert (original.topic, original.partition, original.offset) == ("logins", 3, 42)


def test_sealed_twice_differs_and_shows_nothing() -> None:
    source = record(login())
    one, other = sealer().seal(PLACE, source), sealer().seal(PLACE, source)

    assert one != other
    assert b"199.172.111.135" not in one
    assert b"593-47-5928" not in one


@pytest.mark.parametrize("place", [("other", 3, 42), ("logins", 4, 42), ("logins", 3, 43), ("logins", 34, 2)])
def test_sealed_record_opens_at_its_own_place_only(place: tuple[str, int, int]) -> None:
    topic, partition, offset = place
    with pytest.raises(FatalError, match="doesn't open"):
        opener().open(sealer().seal(PLACE, record(login(), 42)), topic=topic, partition=partition, offset=offset)


@pytest.mark.parametrize("index", [0, 4, 5, 40, -1])
def test_changed_seal_does_not_open(index: int) -> None:
    sealed = bytearray(sealer().seal(PLACE, record(login(), 42)))
    sealed[index] ^= 1

    with pytest.raises(FatalError, match="DEAD_LETTER_PRIVATE_KEYSET_FILE"):
        opener().open(bytes(sealed), topic="logins", partition=3, offset=42)


def test_another_private_keyset_does_not_open() -> None:
    stranger = Opener(keysets.new_secret_keyset(keysets.DEAD_LETTER_TEMPLATE).primitive(hybrid.HybridDecrypt))

    with pytest.raises(FatalError, match="sealed for another keyset"):
        stranger.open(sealer().seal(PLACE, record(login(), 42)), topic="logins", partition=3, offset=42)


def test_the_worker_cannot_open_what_it_sealed() -> None:
    public = dead_letter_handle().public_keyset_handle()

    with pytest.raises(Exception, match="uses primitive HybridEncrypt, and not HybridDecrypt"):
        public.primitive(hybrid.HybridDecrypt)


LARGE = LargeRecord(
    offset=42,
    timestamp=1_000,
    size=5_000_007,
    key_excerpt=Excerpt(3, b"k" * 32, b"key"),
    value_excerpt=Excerpt.of([bytes(5_000_000)]),
    headers=[("message-id", b"\xff"), ("x", None)],
    headers_left_out=7,
)


def test_of_a_record_too_large_to_be_held_size_digest_and_first_bytes_are_sealed() -> None:
    sealed = sealer().seal(PLACE, LARGE)
    assert len(sealed) < 2_000
    original = opener().open(sealed, topic="logins", partition=3, offset=42)
    assert isinstance(original, OriginalLargeRecord)
    assert (original.topic, original.partition, original.offset, original.timestamp) == ("logins", 3, 42, 1_000)
    assert (original.size, original.key, original.headers_left_out, original.batch) == (5_000_007, LARGE.key_excerpt, 7, None)
    assert original.value == Excerpt(5_000_000, hashlib.sha256(bytes(5_000_000)).digest(), bytes(FIRST_BYTES))
    assert original.headers == [("message-id", b"\xff"), ("x", None)]


def test_what_was_sealed_before_there_were_others_opens() -> None:
    """A list that begins with the number 1."""
    as_before = msgspec.msgpack.encode([1, "logins", 3, 42, 1_000, b"key", b"body", [("x", b"1")]])
    sealed = dead_letter_handle().public_keyset_handle().primitive(hybrid.HybridEncrypt).encrypt(
        as_before, b"login-stream dead letter\0logins\x003\x0042"
    )  # fmt: skip
    assert opener().open(sealed, topic="logins", partition=3, offset=42) == OriginalRecord(
        "logins", 3, 42, 1_000, b"key", b"body", [("x", b"1")]
    )


def test_an_excerpt_is_the_same_in_whatever_parts_the_bytes_come() -> None:
    whole = bytes(range(256)) * 10
    assert Excerpt.of([whole[:1], b"", memoryview(whole)[1:1_500], whole[1_500:]]) == Excerpt.of([whole])
    assert Excerpt.of([], 10) == Excerpt(0, hashlib.sha256().digest(), b"")
    assert Excerpt.of([whole], 0).first_bytes == b""
