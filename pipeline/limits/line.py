"""Serves a line of waiters in one task: first come, first served."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

#: Waiters that are served in one turn of the event loop. If it served all, calls would come and go in waves.
MOST_IN_A_TURN = 16
_T = TypeVar("_T")


class Line(Generic[_T]):
    """Serves one waiter at a time, and many that need not wait in the same turn of the event loop.

    An `asyncio.Lock` would wake one waiter in each turn, and a turn costs CPU. `give_back` takes what was made for a
    waiter that was canceled at that moment.
    """

    def __init__(self, give_back: Callable[[_T], None]) -> None:
        self._give_back = give_back
        # Mutable state: what each waiter waits for and how it is made, and the task that makes it.
        self._waiters: deque[tuple[asyncio.Future[_T], Callable[[], Coroutine[Any, Any, _T]]]] = deque()
        self._server: asyncio.Task[None] | None = None

    async def wait(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return what `make` returns, once all earlier waiters are served. Raises what it raises."""
        result: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        waiter = (result, make)
        self._waiters.append(waiter)
        if self._server is None:
            self._start_server()
        try:
            return await result
        except asyncio.CancelledError:
            if not result.cancelled():
                if result.exception() is None:
                    self._give_back(result.result())
            elif self._server is not None and self._waiters and self._waiters[0] is waiter:
                self._waiters.popleft()
                self._server.cancel()
                await asyncio.wait({self._server})
            else:
                with suppress(ValueError):  # it was its turn in the meantime
                    self._waiters.remove(waiter)
            raise

    def _start_server(self, _ended: object = None) -> None:
        """Serve whoever waits. A canceled server has released everything before the next one begins."""
        self._server = None
        if self._waiters:
            self._server = asyncio.create_task(self._serve(), name="line")
            self._server.add_done_callback(self._start_server)

    async def _serve(self) -> None:
        served = 0
        while self._waiters:
            served += 1
            if served % MOST_IN_A_TURN == 0:
                await asyncio.sleep(0)
                continue
            result, make = self._waiters[0]
            if not result.done():
                try:
                    made = await make()
                except Exception as error:
                    if not result.done():
                        result.set_exception(error)
                else:
                    if result.done():
                        self._give_back(made)
                    else:
                        result.set_result(made)
            self._waiters.popleft()
