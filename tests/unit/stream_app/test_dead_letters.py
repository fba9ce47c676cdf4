import pytest
from login_records import ABSENT, PLACE, dead_letter_handle, login, opener, record, sealer
from tink import hybrid

from pipeline.errors import FatalError
from stream_app.dead_letters import Opener, OriginalRecord
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
