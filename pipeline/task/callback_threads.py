"""Threads for the user's code: so many that a slow one holds nobody up, and none that keeps the process alive."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
#: at the most; a callback that waits for a database does little but wait
MOST = 64
#: threads that hang, at the most; as long as there are so many, nothing begins any more
MOST_LOST = 1_000
#: a thread with nothing to do for so long ends
IDLE_S = 10.0
#: Work waits for a thread so many times its time limit, and once more for each full round of work ahead of it. A
#: thread whose work is over its limit is replaced, so who waits longer waits in vain.
BEGIN_ROUNDS = 3


class NoThreadError(Exception):
    """The function was not called, and never will be: there was no thread for it."""


def _many_hang(lost: int) -> NoThreadError:
    return NoThreadError(f"{lost:,} calls of plain functions hang, and no other call starts while there are so many")


@dataclass(slots=True, eq=False)
class _Piece:
    """A piece of work, and how it stands: changed under the threads' lock only.

    `refuse` is called, from any thread, where the work will never begin.
    """

    work: Callable[[], None]
    refuse: Callable[[NoThreadError], object]
    begun: bool = False
    dropped: bool = False
    lost: bool = False
    ended: bool = False


class _Threads:
    """Daemon threads, made as they are needed. The standard pool waits for its threads when the process ends: a
    callback that hangs would keep a run that is over from ending."""

    def __init__(self) -> None:
        self._work: SimpleQueue[_Piece] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        # Threads whose work nobody waits for any more: they may never end, so others are made in their place.
        self._lost = 0
        # Threads that wait for work, less the work that waits for a thread. Counted when work is handed over, not when
        # it is taken: a thread that is about to take one piece must not be counted on for the next.
        self._free = 0

    def start(self, piece: _Piece) -> int:
        """Hand it to a thread; gives how many pieces wait for one, this one included. Raises NoThreadError."""
        with self._lock:
            if self._lost >= MOST_LOST:
                raise _many_hang(self._lost)
            self._work.put(piece)
            self._free -= 1
            waiting = max(0, -self._free)
            makes_one = self._makes_one()
        if makes_one:
            self._make()
        return waiting

    def begin(self, piece: _Piece) -> bool:
        """Whether a thread may call it: not when it was dropped before."""
        with self._lock:
            piece.begun = not piece.dropped
            return piece.begun

    def drop(self, piece: _Piece) -> bool:
        """Have it never begin. False where it has begun."""
        with self._lock:
            piece.dropped = not piece.begun
            return piece.dropped

    def leave(self, piece: _Piece) -> None:
        """Nobody waits for it any more: it never begins or, if it has begun, its thread is taken for lost."""
        if self.drop(piece):
            return
        with self._lock:
            if piece.ended:
                return
            piece.lost = True
            self._lost += 1
            lost = self._lost
            refused = self._taken_back() if lost >= MOST_LOST else ()
            makes_one = self._makes_one()
        for other in refused:
            other.refuse(_many_hang(lost))
        if makes_one:
            self._make()

    def end(self, piece: _Piece) -> None:
        """It is done, whether or not anybody waits."""
        with self._lock:
            piece.ended = True
            self._lost -= piece.lost

    def _taken_back(self) -> Sequence[_Piece]:
        """All that waits for a thread and was not dropped; it is now."""
        found = []
        with suppress(Empty):
            while True:
                piece = self._work.get_nowait()
                self._free += 1
                if not piece.dropped:
                    piece.dropped = True
                    found.append(piece)
        return found

    def _makes_one(self) -> bool:
        if self._free >= 0 or self._threads - self._lost >= MOST:
            return False
        self._threads += 1
        self._free += 1
        return True

    def _make(self) -> None:
        try:
            threading.Thread(target=self._run, name="callback", daemon=True).start()
        except RuntimeError:  # the system gives no more: the work waits for a thread that is there
            with self._lock:
                self._threads -= 1
                self._free -= 1

    def _run(self) -> None:
        while True:
            try:
                piece = self._work.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if self._free <= 0:
                        continue  # some is on its way to this thread
                    self._free -= 1
                    self._threads -= 1
                    return
            if self.begin(piece):
                piece.work()
            with self._lock:
                if self._threads - self._lost > MOST:  # one was made in its place while it hung
                    self._threads -= 1
                    return
                self._free += 1


_threads = _Threads()


async def in_thread(function: Callable[..., _T], *args: Any, timeout_s: float) -> _T:
    """What the function gives, called in a thread. Raises TimeoutError when it has run for `timeout_s`, and
    NoThreadError where it is not called: too many others hang, or no thread came free in a few times `timeout_s`.

    A cancel, or an error, leaves the thread to itself; a function that has not begun by then never does.
    """
    loop, threads = asyncio.get_running_loop(), _threads
    future: asyncio.Future[_T] = loop.create_future()
    begun: asyncio.Future[None] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        result: _T | None = None
        failed: BaseException | None = None
        if _told(loop, _settle, begun, None, None):
            try:
                result = context.run(function, *args)
            except BaseException as error:
                failed = error
        threads.end(piece)
        _told(loop, _settle, future, result, failed)

    piece = _Piece(work, lambda error: _told(loop, _settle, begun, None, error))
    waiting = threads.start(piece)
    try:
        patience_s = timeout_s * (BEGIN_ROUNDS + waiting // MOST)
        if not await _in_time(begun, patience_s) and threads.drop(piece):
            raise NoThreadError(f"no thread became free for it in {patience_s:g} s")
        async with asyncio.timeout(timeout_s):
            return await future
    finally:
        threads.leave(piece)
        future.cancel()


async def _in_time(begun: asyncio.Future[None], patience_s: float) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            await begun
    except TimeoutError:
        return False
    return True


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
