"""The only writer: the ledger first, then the sinks. What is in the queue at once becomes one batch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pipeline.errors import StoreError
from pipeline.records import Outcome

#: Outcomes of one transaction at the most.
BATCH = 500
#: A commit that fails (a full disk is one cause) is tried again for so long, this often.
LAST_TRY_S, TRY_EVERY_S = 30.0, 1.0

#: Makes a batch durable: ledger first, rows after.
Commit = Callable[[Sequence[Outcome]], Awaitable[None]]


class Writer:
    """Takes outcomes from a queue until it is cancelled; then writes what is left, and ends."""

    def __init__(
        self,
        queue: asyncio.Queue[Outcome],
        commit: Commit,
        *,
        gather_s: float = 0.0,
        on_trouble: Callable[[StoreError], None] | None = None,
    ) -> None:
        self._queue = queue
        self._gather_s = gather_s
        self._on_trouble = on_trouble
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
        outcomes = tuple(batch)
        batch.clear()
        commit = asyncio.ensure_future(self._committed(outcomes))
        cancelled = False
        while not commit.done():
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                cancelled = True
        commit.result()
        self._done(len(outcomes))
        if cancelled:
            raise asyncio.CancelledError

    async def _committed(self, batch: Sequence[Outcome]) -> None:
        """Commit; where that fails, stop the run and try again for a while: what is in the batch was paid for."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + LAST_TRY_S
        while True:
            try:
                return await self._commit(batch)
            except StoreError as error:
                if self._on_trouble is not None:
                    self._on_trouble(error)
                if loop.time() >= give_up_at:
                    raise
            await asyncio.sleep(TRY_EVERY_S)

    def _waiting(self, most: int | None = None) -> list[Outcome]:
        waiting = self._queue.qsize()
        return [self._queue.get_nowait() for _ in range(waiting if most is None else min(most, waiting))]

    def _done(self, count: int) -> None:
        for _ in range(count):
            try:
                self._queue.task_done()
            except ValueError:  # a rescued outcome never was in the queue
                return
