"""A source's bytes as UTF-8 blocks: read off the event loop, unpacked, and brought to one encoding."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.errors import InputError
from pipeline.files import read_chunks
from pipeline.readers.compression import HEAD_BYTES, SLICE_BYTES, Inflater, detect
from pipeline.readers.rows import Blocks, Progress
from pipeline.readers.source import Source

T = TypeVar("T")

_WIDE_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def known_encoding(name: str) -> str:
    """The canonical name of an encoding. Raises InputError if there is none of that name."""
    try:
        found = codecs.lookup(name)
        codecs.getincrementaldecoder(name)
        " ".encode(name)  # refuses codecs that are no text encodings, like base64
    except (LookupError, ValueError):
        raise InputError(
            f"input.encoding: {name!r} is not a known encoding; try utf-8, utf-16, cp949, latin-1"
        ) from None
    return "utf-8" if found.name == "utf-8-sig" else found.name


def utf8_blocks(source: Source, *, encoding: str, chunk_bytes: int, progress: Progress) -> Blocks:
    """The text of a source as UTF-8 without byte-order mark, in blocks.

    Bytes that are not in `encoding` come as bytes that are not valid UTF-8, so that one bad line stays one bad line.
    Raises InputError where nothing can be read, BrokenStreamError where compressed data are damaged or cut off.
    """
    plain = _unpacked(_with_head(_chunks(source, chunk_bytes), HEAD_BYTES), source.name, progress)
    if encoding != "utf-8":
        plain = _transcoded(plain, encoding, source.name)
    return _unmarked(_with_head(plain, 4), source.name)


def _chunks(source: Source, chunk_bytes: int) -> Blocks:
    if source.origin is not None and source.origin.blocks is not None:
        return source.origin.blocks(chunk_bytes)
    return _stdin_chunks(chunk_bytes) if source.path is None else _file_chunks(source.path, source.name, chunk_bytes)


async def _file_chunks(path: Path, name: str, chunk_bytes: int) -> Blocks:
    try:
        async with aclosing(read_chunks(path, chunk_bytes=chunk_bytes)) as chunks:
            async for chunk in chunks:
                yield chunk
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error


async def _stdin_chunks(chunk_bytes: int) -> Blocks:
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        raise InputError("stdin: there is no standard input here; set input.path to a file") from None
    while chunk := await _in_daemon(lambda: os.read(number, chunk_bytes)):
        yield chunk


async def _in_daemon(call: Callable[[], T]) -> T:
    """The call's value, from a thread that nobody waits for at exit.

    A pipe may stay silent for ever; a thread of the loop's own pool that reads it would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: OSError | None) -> None:
        if future.cancelled():
            return
        if error:
            future.set_exception(InputError(f"stdin: cannot be read: {error.strerror}"))
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        value, error = None, None
        try:
            value = call()
        except OSError as caught:
            error = caught
        with suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="labelpipe-stdin", daemon=True).start()
    return await future


async def _with_head(blocks: Blocks, size: int) -> Blocks:
    """The same bytes; the first block has at least `size` of them if there are as many."""
    head: bytes | None = b""
    async with aclosing(blocks):
        async for block in blocks:
            if head is None:
                yield block
                continue
            head += block
            if len(head) >= size:
                yield head
                head = None
    if head:
        yield head


async def _unpacked(chunks: Blocks, name: str, progress: Progress) -> Blocks:
    """The plain bytes, whatever they were packed with."""
    inflater: Inflater | None = None
    first = True
    async with aclosing(chunks):
        async for chunk in chunks:
            if first:
                kind = detect(chunk, name)
                inflater = Inflater(kind) if kind else None
                first = False
            if inflater is None:
                progress.bytes_read += len(chunk)
                yield chunk
                continue
            async for block, taken in _inflated(inflater, chunk):
                progress.bytes_read += taken
                yield block
    if inflater:
        inflater.finish()


async def _inflated(inflater: Inflater, chunk: bytes) -> AsyncGenerator[tuple[bytes, int], None]:
    steps = inflater.feed(chunk)
    if len(chunk) <= SLICE_BYTES:
        for step in steps:
            yield step
        return
    while step_or_none := await asyncio.to_thread(next, steps, None):
        yield step_or_none


class _Decoder(Protocol):
    def decode(self, data: bytes, final: bool = False) -> str: ...


async def _transcoded(blocks: Blocks, encoding: str, name: str) -> Blocks:
    decoder: _Decoder = codecs.getincrementaldecoder(encoding)(errors=_ESCAPE)
    async with aclosing(blocks):
        async for block in blocks:
            yield _to_utf8(decoder, block, False, encoding, name)
    yield _to_utf8(decoder, b"", True, encoding, name)


def _to_utf8(decoder: _Decoder, block: bytes, final: bool, encoding: str, name: str) -> bytes:
    try:
        # The surrogates of escaped bytes pass as what is no valid UTF-8: the line that holds them is unreadable.
        return decoder.decode(block, final).encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        hint = f"; write {encoding}-le or {encoding}-be" if encoding in ("utf-16", "utf-32") else ""
        raise InputError(f"{name}: not {encoding} text: {error}{hint}") from error


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Each byte that cannot be decoded as a lone surrogate (Python's own handler leaves out the bytes below 128)."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


_ESCAPE = "labelpipe.escape"
codecs.register_error(_ESCAPE, _escape)


async def _unmarked(blocks: Blocks, name: str) -> Blocks:
    first = True
    async with aclosing(blocks):
        async for block in blocks:
            if first:
                _refuse_wide(block, name)
                yield block.removeprefix(codecs.BOM_UTF8)
                first = False
            else:
                yield block


def _refuse_wide(head: bytes, name: str) -> None:
    for mark, encoding in _WIDE_MARKS.items():
        if head.startswith(mark):
            raise InputError(f'{name}: begins with the mark of {encoding}; set input.encoding = "{encoding}"')
