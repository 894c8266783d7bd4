"""Which batches are called off, and whether any is made any more."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engine import Verdict, verdict_of
from pipeline.errors import CallError
from pipeline.providers import BatchApi, BatchFacts
from pipeline.runlog import log_event
from pipeline.store import Part


class Cancellation:
    """What is called off. `all_of_them`: everything is, and nothing is sent. `is_shut`: no batch is made any more."""

    def __init__(self, api: BatchApi) -> None:
        self._api = api
        # All state that changes: what is said above, which parts are called off, of which of them the server knows, and
        # which were looked at since no batch is made any more.
        self.all_of_them = False
        self.is_shut = False
        self._parts: set[int] = set()
        self._known: set[int] = set()
        self.checked: set[int] = set()

    def shut(self, *, is_shut: bool) -> bool:
        """Make no batch any more, or some again; gives whether that is news."""
        if is_shut is self.is_shut:
            return False
        self.is_shut = is_shut
        self.checked.clear()
        return True

    def includes(self, part: Part) -> bool:
        """Whether the part is called off."""
        return self.all_of_them or part.number in self._parts

    def add(self, parts: Sequence[Part]) -> list[Part]:
        """Call these off; gives those of which that is news."""
        news = [part for part in parts if part.batch_id and not self.includes(part)]
        self._parts |= {part.number for part in news}
        return news

    async def poll(self, part: Part) -> BatchFacts:
        """What the server says of a batch, which is cancelled first where it is called off. Raises a CallError."""
        if self.includes(part) and part.number not in self._known:
            try:
                facts = await self._api.cancel(part.batch_id)
            except CallError as error:
                # It may have ended by itself, or the server cancels none: the look says how it is.
                log_event("a batch was not cancelled", part=part.number, batch=part.batch_id, error=str(error))
                if verdict_of(error) not in (Verdict.RETRY, Verdict.COOL_DOWN):
                    self._known.add(part.number)
            else:
                self._known.add(part.number)
                return facts
        return await self._api.look(part.batch_id)
