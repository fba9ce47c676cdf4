"""Unpacks what a producer has packed, never more of it at a time than was asked for.

aiokafka unpacks a record batch whole, however large it becomes: a megabyte of gzip may hold a gigabyte, one of zstd thirty. Here a
batch is read like a file. What a frame says of its own size is believed nowhere; the two forms that can't be read in small steps
(a snappy block, a zstd window) are refused by their claim, before memory is taken for them.

What is taken at most beside what was asked for: zstd WINDOW_BYTES_MAX, snappy SNAPPY_BLOCK_BYTES_MAX for as long as a call lasts,
lz4 two blocks of 4 MiB, gzip 32 KiB.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final

import cramjam
import lz4.frame
import zstandard
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

WINDOW_BYTES_MAX: Final = 8 * 1_048_576
"""Of zstd: what RFC 8878 asks every decoder to support. Only the levels 20 to 22 make a larger one, of batches larger than this."""

SNAPPY_BLOCK_BYTES_MAX: Final = 32 * 1_048_576
"""Of one snappy block, unpacked: it can't be unpacked in parts. What holds more takes 1.5 MiB packed (snappy packs to a 21st at
best), which a topic of ours doesn't take."""

_FED_BYTES: Final = 32_768
"""So much is given to a decompressor at a time: it copies what it has not used, at each step and at the end of each frame."""

_XERIAL: Final = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"
"""How the Java client frames snappy: blocks behind this, each behind its packed size."""

Read = Callable[[int], bytes]
"""The next bytes, as many as were asked for; fewer only at the end.

Raises what a codec raises, and :class:`TooLargeToUnpackError`.
"""


class TooLargeToUnpackError(Exception):
    """Nothing is known to be wrong with it, but to unpack it takes more memory than it may."""


def reader(codec: int, packed: bytes) -> Read:
    """Reads ``packed``, bit by bit; ``codec`` as in the attributes of a record batch."""
    match codec:
        case 0:
            return _joined(_slices(packed))
        case 1:
            return _joined(_Gzip(packed).some)
        case 2:
            return _joined(_Snappy(packed).some)
        case 3:
            return _joined(_Lz4(packed).some)
        case 4:
            return _zstd(packed)
    raise UnsupportedCodecError(f"Unknown compression codec {codec:#04x}")


def _joined(some: Callable[[int], bytes]) -> Read:
    """As many bytes as were asked for, of what gives some; b"" says that there are no more."""

    def read(size: int) -> bytes:
        parts: list[bytes] = []
        room = size
        while room and (part := some(room)):
            parts.append(part)
            room -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read


def _slices(plain: bytes) -> Callable[[int], bytes]:
    at = 0

    def some(room: int) -> bytes:
        nonlocal at
        start, at = at, at + room
        return plain[start:at]

    return some


class _Gzip:
    """Members one after the other, and zeros behind them, as gzip's own readers take them."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0
        self._member = zlib.decompressobj(wbits=31)

    def some(self, room: int) -> bytes:
        while True:
            if self._member.eof:
                self._at -= len(self._member.unused_data)
                while self._packed.startswith(b"\0", self._at):
                    self._at += 1
                if self._at >= len(self._packed):
                    return b""
                self._member = zlib.decompressobj(wbits=31)
            given = self._member.unconsumed_tail
            if not given:
                given = self._packed[self._at : self._at + _FED_BYTES]
                self._at += len(given)
            part = self._member.decompress(given, room)
            if part:
                return part
            if not given and not self._member.eof:
                raise EOFError("gzip: the packed records end in the middle")


class _Lz4:
    """Frames one after the other."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0
        self._frame = lz4.frame.LZ4FrameDecompressor()
        self._fed_bytes = len(packed)  # mostly there is one frame: the quickest

    def some(self, room: int) -> bytes:
        while True:
            if self._frame.eof:
                self._at -= len(self._frame.unused_data or b"")
                if self._at >= len(self._packed):
                    return b""
                self._frame = lz4.frame.LZ4FrameDecompressor()
                self._fed_bytes = _FED_BYTES
            given = b""
            if self._frame.needs_input:
                given = self._packed[self._at : self._at + self._fed_bytes]
                if not given:
                    raise EOFError("lz4: the packed records end in the middle")
                self._at += len(given)
            part: bytes = self._frame.decompress(given, max_length=room)
            if part:
                return part


def _zstd(packed: bytes) -> Read:
    stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(packed, read_across_frames=True)

    def read(size: int) -> bytes:
        try:
            return stream.read(size)
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):
                raise TooLargeToUnpackError("zstd: the window is larger than a decoder has to support") from error
            raise

    return read


class _Snappy:
    """One block, or several in the frame of the Java client."""

    def __init__(self, packed: bytes) -> None:
        self._blocks = self._framed(packed) if packed.startswith(_XERIAL) else iter([packed])
        self._block: bytes | None = None
        self._size = 0
        self._at = 0

    @staticmethod
    def _framed(packed: bytes) -> Iterator[bytes]:
        at = len(_XERIAL)
        while at < len(packed):
            size, at = int.from_bytes(packed[at : at + 4], "big", signed=True), at + 4
            if not 0 < size <= len(packed) - at:
                raise CorruptRecordException(f"snappy: a block of {size} bytes where {len(packed) - at} are left")
            yield packed[at : at + size]
            at += size

    def some(self, room: int) -> bytes:
        while self._block is None or self._at >= self._size:
            self._block = next(self._blocks, None)
            if self._block is None:
                return b""
            self._size, self._at = cramjam.snappy.decompress_raw_len(self._block), 0
            if self._size > SNAPPY_BLOCK_BYTES_MAX:
                raise TooLargeToUnpackError(f"snappy: a block says that it holds {self._size:,} bytes")
        # A large one is unpacked again for each part of it: kept, it would be 32 MiB for each partition that rests in one.
        unpacked = cramjam.snappy.decompress_raw(self._block)
        start, self._at = self._at, self._at + room
        return bytes(memoryview(unpacked)[start : self._at])
