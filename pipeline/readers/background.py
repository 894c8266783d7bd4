"""What blocks, read in a thread of its own: handed on in memory as it comes, or by way of a file on the disk.

The threads are daemons: a database or an iterator that never answers keeps no process from ending.
"""

import asyncio
import os
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing, suppress
from typing import IO, Generic, TypeVar

from pipeline.readers.rows import Blocks

T = TypeVar("T")


class _Worker:
    """A thread that does `run`, is told when nobody wants more, and tells the loop when there is more."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self._lock = threading.Condition()
        # All state that changes: whether more will come, what ended it, and whether anybody still wants it.
        self._ended = False
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as error:  # it is the reader's to raise
            self._error = error
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the loop may be gone by now
            self._loop.call_soon_threadsafe(self._more.set)

    async def _wait(self) -> None:
        await self._more.wait()
        self._more.clear()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Want no more; the thread ends at its next item."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()


class _IteratorThread(_Worker, Generic[T]):
    """Items in memory, at most `ahead` of them."""

    def __init__(self, make: Callable[[], Iterator[T]], ahead: int) -> None:
        super().__init__("labelpipe-records", self._fill)
        self._make = make
        self._ahead = ahead
        self._items: deque[T] = deque()

    def _fill(self) -> None:
        for item in self._make():
            with self._lock:
                self._lock.wait_for(lambda: self._stopped or len(self._items) < self._ahead)
                if self._stopped:
                    return
                self._items.append(item)
                was_empty = len(self._items) == 1
            if was_empty:
                self._notify()

    async def next_items(self) -> list[T]:
        """What is there, at least one; nothing at the end. Raises what the iterator raised, after what came before."""
        while True:
            ended = self._ended  # asked first: what came before the end is there then
            with self._lock:
                items = list(self._items)
                self._items.clear()
                self._lock.notify_all()
            if items:
                return items
            if ended:
                if self._error is not None:
                    raise self._error
                return []
            await self._wait()


async def iterate_in_thread(make: Callable[[], Iterator[T]], *, ahead: int) -> AsyncGenerator[list[T], None]:
    """The items of a blocking iterator as they come, in lists; never more than `ahead` wait in memory."""
    thread = _IteratorThread(make, ahead)
    thread.start()
    try:
        while items := await thread.next_items():
            yield items
    finally:
        thread.stop()


class _SpoolThread(_Worker):
    """Bytes in a file that has no name, written as fast as they come."""

    def __init__(self, make: Callable[[], Generator[bytes, None, None]], file: IO[bytes]) -> None:
        super().__init__("labelpipe-spool", self._write_and_leave)
        self._make = make
        self._file = file
        self._written = 0
        self._users = 2  # the thread and the reader: the last to leave closes the file

    def _write_and_leave(self) -> None:
        try:
            self._write()
        finally:
            self.leave()

    def leave(self) -> None:
        """Need the file no more."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._file.close()

    def _write(self) -> None:
        with closing(self._make()) as parts:
            for part in parts:
                if self._stopped:
                    return
                self._file.write(part)
                self._file.flush()
                self._written += len(part)
                self._notify()

    async def blocks(self, chunk_bytes: int) -> Blocks:
        """What was written, following the writer; then what ended it is raised, if it was an error."""
        at = 0
        while True:
            ended, written = self._ended, self._written
            while at < written:
                block = await asyncio.to_thread(os.pread, self._file.fileno(), min(chunk_bytes, written - at), at)
                at += len(block)
                yield block
            if ended and at == self._written:
                break
            if not self._ended:
                await self._wait()
        if self._error is not None:
            raise self._error


async def spool_to_disk(make: Callable[[], Generator[bytes, None, None]], *, chunk_bytes: int) -> Blocks:
    """Bytes that should not wait for the labels: they go to a nameless file in the folder of temporary files.

    A connection that is read at the speed of labelling is open all night, and cut by its server long before.
    """
    thread = _SpoolThread(make, tempfile.TemporaryFile(prefix="labelpipe-"))  # noqa: SIM115 - `leave` closes it
    thread.start()
    try:
        async with aclosing(thread.blocks(chunk_bytes)) as blocks:
            async for block in blocks:
                yield block
    finally:
        thread.stop()
        thread.leave()
