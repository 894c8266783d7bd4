"""What blocks, read in a thread of its own: handed on in memory as it comes, or by way of a file on the disk.

The threads are daemons: a database or an iterator that never answers keeps no process from ending.
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
    """A thread that does `run`, learns when nobody wants more, and notifies the loop when there is more."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self.lock = threading.Condition()
        # All state that changes: whether more will come, what ended it, and whether anybody still wants it.
        self.ended = False
        self.error: BaseException | None = None
        self.stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as error:  # it is the reader's to raise
            self.error = error
        self.ended = True
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits in the loop."""
        with suppress(RuntimeError):  # the loop may be gone by now
            self._loop.call_soon_threadsafe(self._more.set)

    async def wait(self) -> None:
        """Wait until there is more, or the end."""
        await self._more.wait()
        self._more.clear()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Want no more; the thread ends at its next item."""
        with self.lock:
            self.stopped = True
            self.lock.notify_all()


async def iterate_in_thread(make: Callable[[], Iterator[T]], *, ahead: int) -> AsyncGenerator[list[T], None]:
    """The items of a blocking iterator as they come, in lists; never more than `ahead` wait in memory.

    Raises what the iterator raised, after what came before it.
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
            ended = worker.ended  # asked first: what came before the end is there then
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
    """Bytes in a file that has no name, written as fast as they come."""

    def __init__(self, make: Callable[[], Generator[bytes, None, None]]) -> None:
        super().__init__("labelpipe-spool", self._write)
        self._make = make
        self.file = tempfile.TemporaryFile(prefix="labelpipe-")  # noqa: SIM115 - `leave` closes it
        self.written = 0
        self._users = 2  # the thread and the reader: the last to leave closes the file

    def leave(self) -> None:
        """Need the file no more."""
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
    """Bytes that should not wait for the labels: they go to a nameless file in the folder of temporary files.

    A connection that is read at the speed of labelling is open all night, and cut by its server long before.
    What ended the writing is raised after what was written, if it was an error.
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
