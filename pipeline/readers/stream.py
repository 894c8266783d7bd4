"""Reads a source's bytes outside of the event loop, decompresses them, and converts them to blocks of UTF-8."""

import asyncio
import codecs
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import read_chunks
from pipeline.readers.compression import HEAD_BYTES, SLICE_BYTES, Inflater, detect
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.readers.encodings import detect_encoding, utf8_converter
from pipeline.readers.rows import Blocks, BrokenStreamError, ReadContext, ReadProgress
from pipeline.readers.signatures import reject_non_text
from pipeline.readers.source import Source
from pipeline.threads import in_daemon

#: How long to wait until somebody opens a pipe for writing.
WRITER_WAIT_S = 60.0
_MARK_BYTES = 4  #: The number of bytes that identify a byte order mark.


def utf8_blocks(source: Source, context: ReadContext, *, chunk_bytes: int) -> Blocks:
    """Yield the text of a source as UTF-8 without byte order mark, in blocks. `context` receives its encoding.

    Bytes that are not in the encoding become invalid UTF-8, so that one bad line stays one bad line. Raises InputError
    if nothing can be read, and BrokenStreamError if compressed data are damaged or cut off.
    """
    plain = _decompress(with_head(_chunks(source, chunk_bytes), HEAD_BYTES), source.name, context.progress)
    # A single-pass source may be slow, so this waits only for the mark.
    blocks = with_head(plain, _MARK_BYTES if source.single_pass else LOOK_BYTES)
    return _decode(blocks, context, markup=source.format == "text")


def _chunks(source: Source, chunk_bytes: int) -> Blocks:
    if source.blocks is not None:
        return source.blocks(chunk_bytes)
    if source.path is None or source.single_pass:
        return _pipe_chunks(source.path, source.name, chunk_bytes)
    return _file_chunks(source.path, source.name, chunk_bytes)


async def _file_chunks(path: Path, name: str, chunk_bytes: int) -> Blocks:
    try:
        async with aclosing(read_chunks(path, chunk_bytes=chunk_bytes)) as chunks:
            async for chunk in chunks:
                yield chunk
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error


async def _pipe_chunks(path: Path | None, name: str, chunk_bytes: int) -> Blocks:
    """Yield the bytes of a pipe, which opens when somebody writes to it; without a path, those of stdin."""
    try:
        if path is None:
            number = _stdin_number()
        else:
            number = await asyncio.wait_for(in_daemon(lambda: os.open(path, os.O_RDONLY)), WRITER_WAIT_S)
    except TimeoutError:
        raise InputError(f"{name}: nothing was written into this pipe for {WRITER_WAIT_S:g} s") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    # Never closed, because an abandoned read may still be running in its thread.
    try:
        while chunk := await in_daemon(lambda: os.read(number, chunk_bytes)):
            yield chunk
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error


def _stdin_number() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        raise InputError("stdin: there is no standard input here; set input.path to a file") from None


async def with_head(blocks: Blocks, size: int, *, or_with: bytes = b"") -> Blocks:
    """Yield the same bytes. The first block has at least `size` bytes or contains `or_with`, if there are enough."""
    head: bytes | None = b""
    async with aclosing(blocks):
        try:
            async for block in blocks:
                if head is None:
                    yield block
                    continue
                head += block
                if len(head) >= size or (or_with and or_with in block):
                    yield head
                    head = None
        except BrokenStreamError:
            if head:
                yield head
            raise
    if head:
        yield head


async def prepend(head: bytes, blocks: Blocks) -> Blocks:
    """Yield `head`, then the blocks."""
    yield head
    async with aclosing(blocks):
        async for block in blocks:
            yield block


async def _decompress(chunks: Blocks, name: str, progress: ReadProgress) -> Blocks:
    """Yield the plain bytes, whatever their compression."""
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
            async for block, consumed in _inflate(inflater, chunk):
                progress.bytes_read += consumed
                yield block
    if inflater:
        inflater.finish()


async def _inflate(inflater: Inflater, chunk: bytes) -> AsyncGenerator[tuple[bytes, int], None]:
    steps = inflater.feed(chunk)
    if len(chunk) <= SLICE_BYTES:
        for step in steps:
            yield step
        return
    while step_or_none := await asyncio.to_thread(next, steps, None):
        yield step_or_none


async def _decode(blocks: Blocks, context: ReadContext, *, markup: bool) -> Blocks:
    """Yield the text in UTF-8. Its first block shows the encoding."""
    decode = None
    first = True
    async with aclosing(blocks):
        async for block in blocks:
            if first:
                reject_non_text(block, context.name, markup=markup)
                context.encoding = detect_encoding(block, context.dialect.encoding, context.name)
                if context.encoding != "utf-8" and context.dialect.encoding is None:
                    note = f"written in {context.encoding}, by its byte order mark"
                    context.progress.note(note, context.name, encoding=context.encoding)
                decode = None if context.encoding == "utf-8" else utf8_converter(context.encoding, context.name)
            plain = block if decode is None else decode(block, False)
            yield plain.removeprefix(codecs.BOM_UTF8) if first else plain
            first = False
    if decode is not None:
        yield decode(b"", True)
