"""Answers of records that are not at their end, made durable before anything is done with them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pipeline.engine.writer import LAST_TRY_S, TRY_EVERY_S
from pipeline.errors import StoppedError, StoreError
from pipeline.limits import Gate
from pipeline.records import SavedAnswer

#: Writes answers; when it returns, they are safe.
Keep = Callable[[Sequence[SavedAnswer]], Awaitable[None]]


class Journal:
    """Keeps answers, many in one write."""

    def __init__(self, keep: Keep, gate: Gate) -> None:
        self._keep = keep
        self._gate = gate
        # All state that changes: what waits to be written, and who writes.
        self._waiting: list[tuple[SavedAnswer, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, answer: SavedAnswer) -> None:
        """Write the answer; when this returns, it is safe.

        Until then it keeps its place at the gate, so that a kill costs no more than is in flight. A ledger that cannot
        be written stops the run; as long as the writer does, the answer waits for it. Raises StoppedError where it
        comes to nothing: nothing is done with an answer that may be lost.
        """
        self._gate.on_answer_queued()
        try:
            await self._kept_at_last(answer)
        finally:
            self._gate.on_answers_written(1)

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _kept_at_last(self, answer: SavedAnswer) -> None:
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + LAST_TRY_S
        while True:
            try:
                return await self._written(answer)
            except StoreError as error:
                self._gate.stop(error)
                if clock() >= give_up_at:
                    raise StoppedError(str(error)) from error
            await asyncio.sleep(TRY_EVERY_S)

    async def _written(self, answer: SavedAnswer) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="journal")
        await done

    async def _write(self) -> None:
        """Write all that waits, and what comes meanwhile: one write for all who wait at once."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._keep([answer for answer, _ in batch])
            except Exception as error:
                _settle(batch, error)
            else:
                _settle(batch, None)


def _settle(batch: Sequence[tuple[SavedAnswer, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue  # its record was cancelled; the answer is written all the same
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
