"""The server's queue as a lane sees it: its own alone, or one that it shares with other processes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.limits import Budget, QueueLimit
from pipeline.store import Part


class BatchQueue(Protocol):
    """Says which part may go to the server, and what a refusal for want of room means.

    `is_shared`: other processes fill it too. `proven`: another one's batch has shown that the requests are right.
    `is_short`: no more money will come from others. `is_learned`: the server has refused a batch for want of room.
    `most_lines`: the most that a part may have for that; None: as many as a batch takes.
    """

    is_shared: bool

    @property
    def proven(self) -> bool: ...

    @property
    def is_short(self) -> bool: ...

    @property
    def is_learned(self) -> bool: ...

    @property
    def most_lines(self) -> int | None: ...

    def begin(self, at_news: Callable[[], None]) -> None:
        """From now on `at_news` hears of what others have changed."""
        ...

    async def take(self, part: Part, others: Sequence[Part], *, counts: bool) -> bool:
        """Whether the part may go to the server, beside these others of this process.

        `counts`: its requests are still to be counted in those of the day.
        """
        ...

    async def refused(self, part: Part, others: Sequence[Part]) -> bool:
        """The server has refused it for want of room; gives whether it alone is too large."""
        ...

    def hold(self, parts: Sequence[Part], *, proven: bool) -> None:
        """All parts of this process that are not closed; `proven`: an answer has shown that the requests are right."""
        ...

    async def top_up(self, budget: Budget, usd: float, tokens: int) -> bool:
        """Whether the budget has room for so much, which may have to be asked for."""
        ...


class LocalQueue:
    """The queue of one process."""

    is_shared = proven = is_short = False

    def __init__(self, enqueued_tokens: int | None) -> None:
        self._limit = QueueLimit(enqueued_tokens)

    @property
    def is_learned(self) -> bool:
        return self._limit.learned is not None

    @property
    def most_lines(self) -> int | None:
        return self._limit.most_lines

    def begin(self, at_news: Callable[[], None]) -> None:
        """There is nobody else."""

    async def take(self, part: Part, others: Sequence[Part], *, counts: bool) -> bool:
        return self._limit.fits(part.tokens, _queued(others))

    async def refused(self, part: Part, others: Sequence[Part]) -> bool:
        return self._limit.refused(part.tokens, part.lines, _queued(others))

    def hold(self, parts: Sequence[Part], *, proven: bool) -> None:
        """Its parts are known at each question."""

    async def top_up(self, budget: Budget, usd: float, tokens: int) -> bool:
        return budget.has_room(usd, tokens)


def _queued(parts: Sequence[Part]) -> int:
    return sum(one.tokens for one in parts if one.is_at_server)
