"""How much may be held at once: amounts are taken in turn and given back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Holding:
    """What one holder has taken."""

    __slots__ = ("_held", "amount")

    def __init__(self, held: Held, amount: int) -> None:
        self._held = held
        self.amount = amount

    def becomes(self, amount: int) -> None:
        """Another amount from now on, known late; never waits, so that nobody who holds something waits for more."""
        self._held._give(self.amount - amount)
        self.amount = amount


class Held:
    """At most `room` at once, first come first served. More than all of it goes when nothing else is held."""

    def __init__(self, room: int) -> None:
        self.room = room
        # All state that changes: what is held, and who waits for how much.
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, amount: int) -> AsyncIterator[Holding]:
        """Wait until the amount fits; it is given back at the end of the block."""
        if self._waiting or not self._fits(amount):
            await self._wait(amount)
        else:
            self.used += amount
        holding = Holding(self, amount)
        try:
            yield holding
        finally:
            holding.becomes(0)

    async def _wait(self, amount: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (amount, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(amount)  # it was granted in the same moment
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(entry)
                self._wake()  # those behind may be small enough
            raise

    def _give(self, amount: int) -> None:
        self.used -= amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self.used += amount
                turn.set_result(None)

    def _fits(self, amount: int) -> bool:
        return self.used + amount <= self.room or self.used <= 0
