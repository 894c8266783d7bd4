"""Tracks which batches are canceled, and whether any are still created."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engine import Verdict, verdict_of
from pipeline.errors import CallError
from pipeline.providers import BatchApi, BatchFacts
from pipeline.runlog import log_event
from pipeline.store import Part


class Cancellation:
    """What is canceled. `all_of_them`: all batches, and nothing is sent. `is_shut`: no more batches are created."""

    def __init__(self, api: BatchApi) -> None:
        self._api = api
        # Mutable state: these two, which parts are canceled, which of these the server knows of, and which parts were
        # checked since batches are no longer created.
        self.all_of_them = False
        self.is_shut = False
        self._parts: set[int] = set()
        self._known: set[int] = set()
        self.checked: set[int] = set()

    def shut(self, *, is_shut: bool) -> bool:
        """Stop creating batches, or resume it. Returns whether this is a change."""
        if is_shut is self.is_shut:
            return False
        self.is_shut = is_shut
        self.checked.clear()
        return True

    def includes(self, part: Part) -> bool:
        """Whether the part is canceled."""
        return self.all_of_them or part.number in self._parts

    def add(self, parts: Sequence[Part]) -> list[Part]:
        """Cancel these parts. Returns those that were not canceled before."""
        news = [part for part in parts if part.batch_id and not self.includes(part)]
        self._parts |= {part.number for part in news}
        return news

    async def poll(self, part: Part) -> BatchFacts:
        """Return the server's facts about a batch, after canceling it if necessary. Raises CallError."""
        if self.includes(part) and part.number not in self._known:
            try:
                facts = await self._api.cancel(part.batch_id)
            except CallError as error:
                # It may have ended by itself, or the server supports no canceling: the poll shows its state.
                log_event("a batch was not cancelled", part=part.number, batch=part.batch_id, error=str(error))
                if verdict_of(error) not in (Verdict.RETRY, Verdict.COOL_DOWN):
                    self._known.add(part.number)
            else:
                self._known.add(part.number)
                return facts
        return await self._api.look(part.batch_id)
