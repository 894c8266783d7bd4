"""Defines a semaphore of amounts, which limits how much is in use at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class WeightedSemaphore:
    """Grants at most `capacity` at once, in order. A larger amount is granted if nothing else is in use."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Mutable state: how much is in use, and the waiting amounts.
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def acquire(self, amount: int) -> AsyncIterator[Callable[[int], None]]:
        """Wait until the amount fits; it is released at the end of the block.

        Yields a function that changes the amount once it is known. It never waits, so that no holder waits for more.
        """
        if self._waiting or not self._fits(amount):
            await self._wait(amount)
        else:
            self.used += amount

        def resize(new: int) -> None:
            nonlocal amount
            self._release(amount - new)
            amount = new

        try:
            yield resize
        finally:
            resize(0)

    async def _wait(self, amount: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (amount, granted)
        self._waiting.append(entry)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(amount)  # it was granted at the same moment
            else:
                with suppress(ValueError):  # `_wake` may have removed it already
                    self._waiting.remove(entry)
                self._wake()  # the next ones may be small enough
            raise

    def _release(self, amount: int) -> None:
        self.used -= amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, granted = self._waiting.popleft()
            if not granted.done():
                self.used += amount
                granted.set_result(None)

    def _fits(self, amount: int) -> bool:
        return self.used + amount <= self.capacity or self.used <= 0
