"""Runs blocking reads in threads of their own, and passes the results on through memory or a file.

The threads are daemons, so that a database or an iterator that never answers does not keep the process alive.
"""

import asyncio
import os
import tempfile
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from pipeline.readers.rows import Blocks

T = TypeVar("T")


class _Worker:
    """A thread for `run`, which can be stopped and notifies the loop when there is more."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self.lock = threading.Condition()
        # Mutable state: whether the thread has ended, the error that ended it, and whether nothing more is needed.
        self.ended = False
        self.error: BaseException | None = None
        self.stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as error:  # the reader raises it
            self.error = error
        self.ended = True
        self.notify()

    def notify(self) -> None:
        """Wake whatever waits in the loop."""
        with suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._more.set)

    async def wait(self) -> None:
        """Wait until there is more, or until the thread ends."""
        await self._more.wait()
        self._more.clear()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end at its next item."""
        with self.lock:
            self.stopped = True
            self.lock.notify_all()


async def iterate_in_thread(make: Callable[[], Iterator[T]], *, ahead: int) -> AsyncGenerator[list[T], None]:
    """Yield the items of a blocking iterator as they come, in lists. At most `ahead` items wait in memory.

    Raises the iterator's error after the items that came before it.
    """
    items: deque[T] = deque()

    def fill() -> None:
        for item in make():
            with worker.lock:
                worker.lock.wait_for(lambda: worker.stopped or len(items) < ahead)
                if worker.stopped:
                    return
                items.append(item)
                was_empty = len(items) == 1
            if was_empty:
                worker.notify()

    worker = _Worker("labelpipe-records", fill)
    worker.start()
    try:
        while True:
            ended = worker.ended  # read first, so that everything before the end is in `items`
            with worker.lock:
                batch = list(items)
                items.clear()
                worker.lock.notify_all()
            if batch:
                yield batch
            elif ended:
                break
            else:
                await worker.wait()
        if worker.error is not None:
            raise worker.error
    finally:
        worker.stop()


class _Spool(_Worker):
    """Bytes in a file without a name, written as fast as they arrive."""

    def __init__(self, make: Callable[[], Generator[bytes, None, None]]) -> None:
        super().__init__("labelpipe-spool", self._write)
        self._make = make
        self.file = tempfile.TemporaryFile(prefix="labelpipe-")  # noqa: SIM115 - `leave` closes it
        self.written = 0
        self._users = 2  # the thread and the reader; the last one to leave closes the file

    def leave(self) -> None:
        """Release the file. The last user closes it."""
        with self.lock:
            self._users -= 1
            if not self._users:
                self.file.close()

    def _write(self) -> None:
        try:
            with closing(self._make()) as parts:
                for part in parts:
                    if self.stopped:
                        return
                    self.file.write(part)
                    self.file.flush()
                    self.written += len(part)
                    self.notify()
        finally:
            self.leave()


async def spool_to_disk(make: Callable[[], Generator[bytes, None, None]], *, chunk_bytes: int) -> Blocks:
    """Yield bytes by way of a nameless temporary file, so that the source does not wait for the labels.

    A connection that is read only as fast as the labels come would be open for hours, and its server would close it.
    An error that ended the writing is raised after the bytes that came before it.
    """
    spool = _Spool(make)
    spool.start()
    at = 0
    try:
        while True:
            ended, written = spool.ended, spool.written
            while at < written:
                block = await asyncio.to_thread(os.pread, spool.file.fileno(), min(chunk_bytes, written - at), at)
                at += len(block)
                yield block
            if ended and at == spool.written:
                break
            if not spool.ended:
                await spool.wait()
        if spool.error is not None:
            raise spool.error
    finally:
        spool.stop()
        spool.leave()
