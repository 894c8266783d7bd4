"""Runs the user's code in threads: enough that a slow call delays no other, and none keeps the process alive."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
#: The most threads that do not hang. A callback that uses a database mostly waits.
MAX_THREADS = 64
#: The number of hung threads at which no new work starts.
MAX_HUNG = 1_000
#: Seconds after which an idle thread ends.
IDLE_S = 10.0
#: Work waits for a thread for this many times its time limit, and once more for each full round of work ahead of it. A
#: thread whose work exceeds its limit is replaced, so waiting longer is useless.
START_ROUNDS = 3


class NoThreadError(Exception):
    """The function was not called and never will be, because there was no thread for it."""


def _many_hang(hung: int) -> NoThreadError:
    return NoThreadError(f"{hung:,} calls of plain functions hang, and no other call starts while there are so many")


@dataclass(slots=True, eq=False)
class _WorkItem:
    """A piece of work and its state, which changes only under the pool's lock.

    `refuse` is called, from any thread, if the work will never start.
    """

    work: Callable[[], None]
    refuse: Callable[[NoThreadError], object]
    started: bool = False
    cancelled: bool = False
    hung: bool = False
    finished: bool = False


class _ThreadPool:
    """Daemon threads, created on demand. The standard pool joins its threads when the process exits, so a hung
    callback would keep a finished run from ending."""

    def __init__(self) -> None:
        self._work: SimpleQueue[_WorkItem] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Threads whose work nobody waits for anymore. They may never end, so others are created in their place.
        self._hung = 0
        # Idle threads minus waiting work. It changes when work is submitted, not when it is taken, so that a thread
        # that is about to take one piece does not count as free for the next.
        self._free = 0

    def start(self, item: _WorkItem) -> int:
        """Submit the work. Return how many pieces wait for a thread, including this one. Raises NoThreadError."""
        with self._lock:
            if self._hung >= MAX_HUNG:
                raise _many_hang(self._hung)
            self._work.put(item)
            self._free -= 1
            waiting_count = max(0, -self._free)
            grows = self._should_grow()
        if grows:
            self._grow()
        return waiting_count

    def try_start(self, item: _WorkItem) -> bool:
        """Whether a thread may call it, that is, whether it was not canceled."""
        with self._lock:
            item.started = not item.cancelled
            return item.started

    def cancel_item(self, item: _WorkItem) -> bool:
        """Keep the work from starting. Return False if it has started."""
        with self._lock:
            item.cancelled = not item.started
            return item.cancelled

    def abandon(self, item: _WorkItem) -> None:
        """Give up on the work: it never starts or, if it has started, its thread counts as hung."""
        if self.cancel_item(item):
            return
        with self._lock:
            if item.finished:
                return
            item.hung = True
            self._hung += 1
            hung = self._hung
            items = self._drain() if hung >= MAX_HUNG else ()
            grows = self._should_grow()
        for other in items:
            other.refuse(_many_hang(hung))
        if grows:
            self._grow()

    def finish(self, item: _WorkItem) -> None:
        """Record that the work is done."""
        with self._lock:
            item.finished = True
            self._hung -= item.hung

    def _drain(self) -> Sequence[_WorkItem]:
        """Cancel all waiting work, and return what was not canceled before."""
        items = []
        with suppress(Empty):
            while True:
                item = self._work.get_nowait()
                self._free += 1
                if not item.cancelled:
                    item.cancelled = True
                    items.append(item)
        return items

    def _should_grow(self) -> bool:
        if self._free >= 0 or self._threads - self._hung >= MAX_THREADS:
            return False
        self._threads += 1
        self._free += 1
        return True

    def _grow(self) -> None:
        try:
            threading.Thread(target=self._run, name="callback", daemon=True).start()
        except RuntimeError:  # the system allows no more threads: the work waits for an existing one
            with self._lock:
                self._threads -= 1
                self._free -= 1

    def _run(self) -> None:
        while True:
            try:
                item = self._work.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._free <= 0:
                        continue  # work for this thread is on its way
                    self._free -= 1
                    self._threads -= 1
                    return
            if self.try_start(item):
                item.work()
            with self._lock:
                if self._threads - self._hung > MAX_THREADS:  # it was replaced while it hung
                    self._threads -= 1
                    return
                self._free += 1


_pool = _ThreadPool()


async def run_in_thread(function: Callable[..., _T], *args: Any, timeout_s: float) -> _T:
    """Call the function in a thread and return its result. Raises TimeoutError after `timeout_s`, and NoThreadError
    if it is not called: too many others hang, or no thread became free within a few times `timeout_s`.

    After a cancellation or an error, the thread is abandoned, and a function that has not started never will.
    """
    loop, pool = asyncio.get_running_loop(), _pool
    future: asyncio.Future[_T] = loop.create_future()
    started: asyncio.Future[None] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        result: _T | None = None
        failed: BaseException | None = None
        if _call_in_loop(loop, _settle, started, None, None):
            try:
                result = context.run(function, *args)
            except BaseException as error:
                failed = error
        pool.finish(item)
        _call_in_loop(loop, _settle, future, result, failed)

    item = _WorkItem(work, lambda error: _call_in_loop(loop, _settle, started, None, error))
    waiting_count = pool.start(item)
    try:
        patience_s = timeout_s * (START_ROUNDS + waiting_count // MAX_THREADS)
        if not await _wait_started(started, patience_s) and pool.cancel_item(item):
            raise NoThreadError(f"no thread became free for it in {patience_s:g} s")
        async with asyncio.timeout(timeout_s):
            return await future
    finally:
        pool.abandon(item)
        future.cancel()


async def _wait_started(started: asyncio.Future[None], patience_s: float) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            await started
    except TimeoutError:
        return False
    return True


def _call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> bool:
    """Schedule the call in the loop. Return False if it is closed, so that nobody waits."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        return False
    return True


def _settle(future: asyncio.Future[Any], result: Any, failed: BaseException | None) -> None:
    if future.done():
        return
    if failed is not None:
        future.set_exception(failed)
    else:
        future.set_result(result)
