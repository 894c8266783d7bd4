"""The only writer: the ledger first, then the sinks. What is in the queue at once becomes one batch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pipeline.records import Outcome

#: Outcomes of one transaction at the most.
BATCH = 500
#: Makes a batch durable: ledger first, rows after.
Commit = Callable[[Sequence[Outcome]], Awaitable[None]]


class Writer:
    """Takes outcomes from a queue until it is cancelled; then writes what is left, and ends."""

    def __init__(self, queue: asyncio.Queue[Outcome], commit: Commit, *, gather_s: float = 0.0) -> None:
        self._queue = queue
        self._gather_s = gather_s
        self._commit = commit
        #: outcomes whose worker was cancelled while the queue was full
        self.rescued: list[Outcome] = []

    async def run(self) -> None:
        """Write until cancelled. An error of `commit` is not caught: without a ledger there is no run."""
        batch: list[Outcome] = []
        try:
            while True:
                batch = [await self._queue.get()]
                await asyncio.sleep(self._gather_s)
                batch += self._waiting(BATCH - 1)
                await self._write(batch)
                batch = []
        except asyncio.CancelledError:
            # What was paid for is written down even now. Nothing here waits for a peer, only for the disk.
            await self._write(batch + self._waiting() + self.rescued)
            raise

    async def _write(self, batch: list[Outcome]) -> None:
        """Commit and empty `batch`. A cancel is seen only after the commit: nothing is torn or written twice."""
        if not batch:
            return
        taken = tuple(batch)
        batch.clear()
        commit = asyncio.ensure_future(self._commit(taken))
        cancelled = False
        while not commit.done():
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                cancelled = True
        commit.result()
        self._done(len(taken))
        if cancelled:
            raise asyncio.CancelledError

    def _waiting(self, most: int | None = None) -> list[Outcome]:
        waiting = self._queue.qsize()
        return [self._queue.get_nowait() for _ in range(waiting if most is None else min(most, waiting))]

    def _done(self, count: int) -> None:
        for _ in range(count):
            try:
                self._queue.task_done()
            except ValueError:  # a rescued outcome never was in the queue
                return
