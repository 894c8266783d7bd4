"""Accesses files without blocking the event loop. Only this module knows aiofiles.

A call through aiofiles costs about 60 us whatever its size, so everything here moves large blocks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import aiofiles
import aiofiles.os

CHUNK_BYTES = 256 * 1024


async def read_chunks(path: str | Path, *, chunk_bytes: int = CHUNK_BYTES) -> AsyncGenerator[bytes, None]:
    """Yield the file's bytes in blocks, in order."""
    file = await _open_cancellable(path)
    try:
        while chunk := await file.read(chunk_bytes):
            yield chunk
    finally:
        await _run_to_end(file.close())


async def _open_cancellable(path: str | Path) -> Any:
    """Open the file for reading. A cancel cannot stop the opening thread, so the file that it opens is closed then."""
    opening = asyncio.ensure_future(_open(path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _run_to_end(_close_opened(opening))
        raise


async def _close_opened(opening: asyncio.Future[Any]) -> None:
    with suppress(OSError):
        await (await opening).close()


async def _run_to_end(work: Coroutine[Any, Any, object]) -> None:
    """Finish work on an open file, even if the caller is canceled meanwhile, however often."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


async def _open(path: str | Path) -> Any:
    return await aiofiles.open(path, "rb")


def _write_and_flush(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()


class AppendFile:
    """A file that is appended to, with one joined buffer per batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._file: Any = None

    async def open(self, *, keep_bytes: int) -> None:
        """Open the file and truncate it to its first `keep_bytes` bytes."""
        self._file = await asyncio.to_thread(self.path.open, "r+b" if self.path.exists() else "w+b")
        await asyncio.to_thread(self._file.truncate, keep_bytes)
        self._file.seek(keep_bytes)
        self.size_bytes = keep_bytes

    async def append(self, data: bytes) -> None:
        """Write all of `data` to the operating system."""
        await asyncio.to_thread(_write_and_flush, self._file, data)
        self.size_bytes += len(data)

    async def sync(self) -> None:
        """Wait until the data is on the disk (fsync)."""
        await asyncio.to_thread(os.fsync, self._file.fileno())

    async def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file is not None:
            await asyncio.to_thread(self._file.close)
            self._file = None

    async def __aenter__(self) -> AppendFile:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
