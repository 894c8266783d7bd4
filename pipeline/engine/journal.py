"""Saves the answers of unfinished records before anything is done with them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pipeline.engine.writer import LAST_TRY_S, TRY_EVERY_S
from pipeline.errors import StoppedError, StoreError
from pipeline.limits import Gate
from pipeline.records import SavedAnswer

#: Writes answers. They are durable when it returns.
Keep = Callable[[Sequence[SavedAnswer]], Awaitable[None]]


class Journal:
    """Saves answers, many in one write."""

    def __init__(self, keep: Keep, gate: Gate) -> None:
        self._keep = keep
        self._gate = gate
        # Mutable state: the answers to write, and the task that writes.
        self._waiting: list[tuple[SavedAnswer, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, answer: SavedAnswer) -> None:
        """Write the answer. It is durable when this returns.

        Until then it holds its place at the gate, so a kill costs at most the calls in flight. A ledger that cannot be
        written stops the run, and the answer waits as long as the writer does. Raises StoppedError if that fails,
        because an answer that may be lost must not be used.
        """
        self._gate.on_answer_queued()
        try:
            await self._kept_at_last(answer)
        finally:
            self._gate.on_answers_written(1)

    async def close(self) -> None:
        """Wait for the write in progress."""
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
        """Write all waiting answers, and those that arrive meanwhile: one write for all that wait at once."""
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
            continue  # its record was canceled; the answer is written anyway
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
