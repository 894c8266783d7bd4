"""Detects gzip, bz2, xz, and zstd by their first bytes, and decompresses them piece by piece."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.rows import BrokenStreamError

ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}

#: The number of first bytes that identify the compression.
HEAD_BYTES = 10
#: The approximate size of decompressed blocks, so that their reader can yield to the event loop.
BLOCK_BYTES = 256 * 1024
#: A damaged place can cost at most the output of one slice before it. Each slice is a call that releases the
#: interpreter lock, so slices must not be tiny either.
SLICE_BYTES = 16 * 1024
#: The most decompressed bytes of one step. Without this limit, a bz2 file of 5 kB could take 5 GB of memory.
STEP_BYTES = 1024 * 1024
#: The compressed bytes of one zstd step: its blocks of 4 bytes may hold 128 KiB each.
ZSTD_BYTES = 256
#: An xz file may request gigabytes before its first byte; `xz -9` takes 65 MiB.
XZ_MEMORY_BYTES = 256 * 1024 * 1024


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("Reading a zstd file", "zstd") from None
    return zstandard


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one compression begins, its decompressor, and the error that this raises."""

    magic: re.Pattern[bytes]
    new: Callable[[], Any]
    error: Callable[[], type[Exception]]


_KINDS = {
    "gzip": _Kind(re.compile(rb"\x1f\x8b"), lambda: zlib.decompressobj(wbits=31), lambda: zlib.error),
    # Text may begin with "BZh". A file goes on with the first digits of pi, or of its square root if it is empty.
    "bz2": _Kind(re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor, lambda: OSError),
    "xz": _Kind(
        re.compile(rb"\xfd7zXZ\x00"), partial(lzma.LZMADecompressor, memlimit=XZ_MEMORY_BYTES), lambda: lzma.LZMAError
    ),
    "zstd": _Kind(
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        lambda: _zstd().ZstdDecompressor().decompressobj(),
        lambda: _zstd().ZstdError,
    ),
}


def detect(head: bytes, name: str) -> str | None:
    """Return the compression of a source that begins with `head`; None if it is not compressed.

    Raises InputError if the ending of the name contradicts the content.
    """
    detected = next((kind for kind, how in _KINDS.items() if how.magic.match(head)), None)
    expected = next((kind for ending, kind in ENDINGS.items() if name.lower().endswith(ending)), None)
    if detected or not expected or not head:
        return detected
    if len(head) < HEAD_BYTES:
        return expected  # cut off within its first bytes; the decompressor reports it
    raise InputError(f"{name}: named like a {expected} file, but its content is not {expected}; rename it")


class Inflater:
    """Decompresses one compression, chunk by chunk, across any number of consecutive members (frames)."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._new = _KINDS[kind].new
        self._error = _KINDS[kind].error()
        self._member: Any = None
        self._members = 0
        self._full = False  # whether the last step returned as much as it may

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield plain blocks, each with the number of bytes of `data` that it took. A few kB may become gigabytes.

        Raises BrokenStreamError at a damaged place, after the blocks before it.
        """
        out, size, consumed = [], 0, 0
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            consumed += len(piece)
            for plain, error in self._undo(piece):
                out.append(plain)
                size += len(plain)
                if size >= BLOCK_BYTES or error:
                    yield b"".join(out), consumed
                    out, size, consumed = [], 0, 0
                if error:
                    raise BrokenStreamError(f"the {self._kind} data are damaged here and the rest is lost: {error}")
        if consumed:
            yield b"".join(out), consumed

    def finish(self) -> None:
        """Require that the data are complete. Raises BrokenStreamError."""
        if self._member is not None:
            raise BrokenStreamError(f"the {self._kind} data are cut off here: the file is not complete")

    def _undo(self, data: bytes) -> Iterator[tuple[bytes, Exception | None]]:
        """Yield the decompressed `data` in steps of bounded size, and the error that ended it."""
        while data or self._holds_more():
            if self._member is None:
                # Members may be padded with zeros, as on tapes.
                data = data.lstrip(b"\0") if self._members else data
                self._member = self._new() if data else None
                continue
            spare = self._member.copy() if self._kind == "gzip" else None
            try:
                plain, data = self._step(data)
            except self._error as error:
                yield _salvage(spare, data), error
                return
            yield plain, None
            if self._member.eof:
                self._member = None
                self._members += 1

    def _holds_more(self) -> bool:
        """Whether the decompressor still has output for the bytes that it has taken."""
        if self._member is None or self._kind == "zstd":
            return False
        return self._full if self._kind == "gzip" else not self._member.needs_input

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return some plain bytes, and the rest of `data`. Raises the decompressor's own error."""
        if self._kind == "zstd":  # it has no limit of its own, so it gets only a few bytes at a time
            plain = self._member.decompress(data[:ZSTD_BYTES])
            return plain, (self._member.unused_data if self._member.eof else b"") + data[ZSTD_BYTES:]
        plain = self._member.decompress(data, STEP_BYTES)
        self._full = len(plain) >= STEP_BYTES
        if self._member.eof:
            return plain, self._member.unused_data
        return plain, self._member.unconsumed_tail if self._kind == "gzip" else b""


def _salvage(member: Any, data: bytes) -> bytes:
    """Return a gzip member's output before its damaged place, byte by byte: an error loses the output of its call."""
    plain = bytearray()
    try:
        for index in range(len(data) if member else 0):
            plain += member.decompress(data[index : index + 1])
    except zlib.error:
        pass
    return bytes(plain)
