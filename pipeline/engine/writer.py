"""The only writer: the ledger first, then the sinks. What is in the queue at one time becomes one batch."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pipeline.errors import StoreError
from pipeline.records import Outcome

#: The most outcomes of one transaction.
BATCH = 500
#: How long and how often a failed commit (because of a full disk, for example) is tried again.
LAST_TRY_S, TRY_EVERY_S = 30.0, 1.0

#: Makes a batch durable: ledger first, then rows.
Commit = Callable[[Sequence[Outcome]], Awaitable[None]]


class Writer:
    """Takes outcomes from a queue until it is canceled, then writes the rest and ends."""

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
        #: outcomes whose worker was canceled while the queue was full
        self.rescued: list[Outcome] = []

    async def run(self) -> None:
        """Write until canceled. Errors of `commit` are not caught, because a run needs its ledger."""
        batch: list[Outcome] = []
        try:
            while True:
                batch = [await self._queue.get()]
                await asyncio.sleep(self._gather_s)
                batch += self._waiting(BATCH - 1)
                await self._write(batch)
                batch = []
        except asyncio.CancelledError:
            # Paid outcomes are written even now. This waits only for the disk, and never for a peer.
            await self._write(batch + self._waiting() + self.rescued)
            raise

    async def _write(self, batch: list[Outcome]) -> None:
        """Commit and empty `batch`. A cancel waits for the commit, so nothing is torn or written twice."""
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
        """Commit. If that fails, stop the run and try again for a while, because the batch was paid for."""
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
            except ValueError:  # a rescued outcome was never in the queue
                return
