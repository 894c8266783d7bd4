"""Answers of records that are not at their end, made durable before anything is done with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pipeline.records import Turn

#: Writes turns; when it returns, they are safe.
KeepTurns = Callable[[Sequence[Turn]], Awaitable[None]]


class Journal:
    """Keeps turns, many in one write. `kept` are those of an earlier session, by the record's key."""

    def __init__(self, keep: KeepTurns, kept: Mapping[str, Sequence[Turn]] | None = None) -> None:
        self._keep = keep
        # All state that changes: what an earlier session left, what waits to be written, and who writes.
        self._kept = dict(kept or {})
        self._waiting: list[tuple[Turn, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def take(self, key: str) -> Sequence[Turn]:
        """What an earlier session left of this record."""
        return self._kept.pop(key, ())

    async def keep(self, turn: Turn) -> None:
        """Write the turn; when this returns, it is safe. Raises StoreError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="journal")
        await done

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write(self) -> None:
        """Write all that waits, and what comes meanwhile: one write for all who wait at once."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._keep([turn for turn, _ in batch])
            except Exception as error:
                _settle(batch, error)
            else:
                _settle(batch, None)


def _settle(batch: Sequence[tuple[Turn, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():
            continue  # its record was cancelled; the turn is written all the same
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
