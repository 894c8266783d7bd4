"""Threads for the user's code: so many that a slow one holds nobody up, and none that keeps the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
#: at the most; a callback that waits for a database does little but wait
MOST = 64
#: threads that hang for good, at the most; beyond them callbacks wait in vain
MOST_LOST = 1_000
#: a thread with nothing to do for so long ends
IDLE_S = 10.0

_Work = Callable[[], None]


@dataclass(slots=True)
class _State:
    """How a piece of work stands: changed under the threads' lock only."""

    lost: bool = False
    ended: bool = False


class _Threads:
    """Daemon threads, made as they are needed. The standard pool waits for its threads when the process ends: a
    callback that hangs would keep a run that is over from ending."""

    def __init__(self) -> None:
        self._work: SimpleQueue[_Work] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Threads whose work nobody waits for any more: they may never end, so others are made in their place.
        self._lost = 0
        # Threads that wait for work, less the work that waits for a thread. Counted when work is handed over, not when
        # it is taken: a thread that is about to take one piece must not be counted on for the next.
        self._free = 0

    def start(self, work: _Work) -> None:
        with self._lock:
            self._work.put(work)
            self._free -= 1
            if not self._makes_one():
                return
        threading.Thread(target=self._run, name="callback", daemon=True).start()

    def lose(self, state: _State) -> None:
        """Nobody waits any more for what one of the threads is doing."""
        with self._lock:
            if state.ended:
                return
            state.lost = True
            self._lost += 1
            if not self._makes_one():
                return
        threading.Thread(target=self._run, name="callback", daemon=True).start()

    def end(self, state: _State) -> None:
        """It is done, whether or not anybody waits."""
        with self._lock:
            state.ended = True
            self._lost -= state.lost

    def _makes_one(self) -> bool:
        if self._free >= 0 or self._threads - self._lost >= MOST or self._lost >= MOST_LOST:
            return False
        self._threads += 1
        self._free += 1
        return True

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._free <= 0:
                        continue  # some is on its way to this thread
                    self._free -= 1
                    self._threads -= 1
                    return
            work()
            with self._lock:
                self._free += 1


_threads = _Threads()


async def in_thread(function: Callable[..., _T], *args: Any, timeout_s: float) -> _T:
    """What the function gives, called in a thread. Raises TimeoutError when it has run for `timeout_s`.

    A cancel, or the timeout, leaves the thread to itself; a function that has not begun by then never does.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    begun: asyncio.Future[None] = loop.create_future()
    context = contextvars.copy_context()
    state = _State()

    def work() -> None:
        result: _T | None = None
        failed: BaseException | None = None
        if future.done() or not _told(loop, _settle, begun, None, None):
            return
        try:
            result = context.run(function, *args)
        except BaseException as error:
            failed = error
        _threads.end(state)
        _told(loop, _settle, future, result, failed)

    _threads.start(work)
    try:
        await begun
        async with asyncio.timeout(timeout_s):
            return await future
    finally:
        if begun.done() and not begun.cancelled() and (not future.done() or future.cancelled()):
            _threads.lose(state)
        future.cancel()


def _told(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> bool:
    """Call it in the loop; False where the loop is closed, and nobody waits any more."""
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
