"""Decides how large parts are and which may be sent: the first one alone, within the budget, the day, and the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pipeline.batches.batch_runner import BatchRunner
from pipeline.batches.config import LaneConfig
from pipeline.batches.packer import MOST_LINES
from pipeline.batches.queue import BatchQueue
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, Budget, DayLimitReachedError, DayMeter
from pipeline.store import Part

#: A part that exceeds the budget is made smaller, down to this share of it. Less is not worth a batch.
SMALLEST_SHARE = 1 / 32


class PartAdmission:
    """Admits the parts of a lane. `is_busy`: this process is working on paid answers. `stop` stops the run."""

    def __init__(
        self,
        config: LaneConfig,
        queue: BatchQueue,
        admission: Admission,
        day: DayMeter | None,
        batch_runner: Callable[[], BatchRunner],
        *,
        is_busy: Callable[[], bool],
        stop: Callable[[LabelpipeError], None],
    ) -> None:
        self._config = config
        self._queue = queue
        self._admission = admission
        self._budget = admission.budget
        self._day = day
        self._batch_runner = batch_runner
        self._is_busy = is_busy
        self._stop = stop
        # Mutable state: whether other parts wait until the first is back, whether an answer has shown that the requests
        # are right, how many lines a shard can afford, and which part was packed to be sent first.
        self.tries_one = self.proven = False
        self._affordable_lines = MOST_LINES
        self._first: int | None = None

    def size(self) -> int:
        """Return how many lines the part that is being filled may have."""
        most = self._config.first_part if self._packs_first else self._config.part_records
        return min(self._affordable_lines, self._queue.most_lines or MOST_LINES, most)

    @property
    def _packs_first(self) -> bool:
        """Whether the part that is being filled will or may be the first to be sent."""
        return not ((self._is_proven and not self.tries_one) or self._batch_runner().open)

    @property
    def _is_proven(self) -> bool:
        return self.proven or self._queue.proven

    def on_packed(self, part: Part) -> None:
        """Handle a packed part."""
        self._first = part.number if self._packs_first else self._first
        self._batch_runner().on_packed(part)

    def leaves_room(self, usd: float, tokens: int) -> bool:
        """Whether the budget has room for a part with this maximum cost."""
        # A shard's own share of the budget does not show how much is left.
        return self._budget is None or self._queue.is_shared or self._budget.has_room(usd, tokens)

    async def may_send(self, part: Part, others: Sequence[Part]) -> bool:
        """Whether a part may be sent. The first one goes alone, and its maximum cost must fit the budget."""
        if self._admission.gate.stopped is not None or (others and not self._is_proven):
            return False
        if self.tries_one and (others or self._batch_runner().took_s):
            return False  # how long it took soon decides the lane
        if part.number == self._first and self._queue.proven and not (self.proven or self.tries_one):
            self._first = None
            await self._batch_runner().split(part)  # another process sent the first part: pack these records anew
            return False
        hours = self._admission.hours
        if hours is not None and hours.wait_s(datetime.now().astimezone()) > 0:
            return False
        usd, tokens = part.most_usd or 0.0, part.most_tokens
        if self._budget is not None and not await self._queue.top_up(self._budget, usd, tokens):
            if self._is_idle(others) and (self._queue.is_short or not self._queue.is_shared):
                await self._make_fit(part, self._budget)
            return False
        if not await self._queue.take(part, others, counts=True):
            return False
        if self._day is not None and await self._day.take_many(part.lines):
            if self._config.stops_at_day_limit and self._is_idle(others):
                message = f"the {self._day.limit:,} requests a day leave no room for a batch of {part.lines:,}"
                self._stop(DayLimitReachedError(f"{message}; the same command resumes tomorrow (UTC)"))
            return False
        self.count_queued(part)
        return True

    def _is_idle(self, others: Sequence[Part]) -> bool:
        """Whether nothing is sent or in progress, so that a stop leaves no paid answer unread."""
        return not others and not self._is_busy()

    async def _make_fit(self, part: Part, budget: Budget) -> None:
        """Split a part that is too expensive while nothing else is in progress, or stop if the budget is used up."""
        usd, tokens, share = part.most_usd or 0.0, part.most_tokens, 1.0
        while share > SMALLEST_SHARE and not await self._queue.top_up(budget, usd * share, int(tokens * share)):
            share /= 2
        if share <= SMALLEST_SHARE or part.lines * share < 1:
            self._stop(budget.reached(usd, tokens))
        else:
            if self._queue.is_shared:
                self._affordable_lines = int(part.lines * share)
            await self._batch_runner().split(part)

    def count_queued(self, part: Part | None = None) -> None:
        """Count the maximum cost of sent parts as spent until they are read."""
        self._queue.hold(list(self._batch_runner().parts.values()), proven=self.proven)
        if self._budget is None:
            return
        sent = {one.number: one for one in self._batch_runner().parts.values() if one.is_sent}
        if part is not None:
            sent[part.number] = part
        self._budget.set_queued(
            sum(one.most_usd or 0.0 for one in sent.values()), sum(one.most_tokens for one in sent.values())
        )
