"""The server's queue of a lane: used by one process, or shared with others."""

from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.limits import Budget, QueueLimit
from pipeline.store import Part


class BatchQueue(Protocol):
    """Decides which part may go to the server, and what a refusal for lack of room means.

    `is_shared`: other processes also fill the queue. `proven`: another process's batch has shown that the requests are
    right. `is_short`: others will release no more money. `is_learned`: the server has refused a batch for lack of
    room. `most_lines`: the most lines that a part may have because of that (None: as many as a batch allows).
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
        """Start. `at_news` is called when other processes change something."""
        ...

    async def take(self, part: Part, others: Sequence[Part], *, counts: bool) -> bool:
        """Whether the part may go to the server in addition to these other parts of this process.

        `counts`: its requests are not yet counted in those of the day.
        """
        ...

    async def refused(self, part: Part, others: Sequence[Part]) -> bool:
        """Handle a refusal for lack of room. Returns whether the part alone is too large."""
        ...

    def hold(self, parts: Sequence[Part], *, proven: bool) -> None:
        """Report all open parts of this process. `proven`: an answer has shown that the requests are right."""
        ...

    async def top_up(self, budget: Budget, usd: float, tokens: int) -> bool:
        """Whether the budget has room for this much, after asking for more if necessary."""
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
        """Do nothing: there are no other processes."""

    async def take(self, part: Part, others: Sequence[Part], *, counts: bool) -> bool:
        return self._limit.fits(part.tokens, _queued(others))

    async def refused(self, part: Part, others: Sequence[Part]) -> bool:
        return self._limit.refused(part.tokens, part.lines, _queued(others))

    def hold(self, parts: Sequence[Part], *, proven: bool) -> None:
        """Do nothing: the other methods receive the parts."""

    async def top_up(self, budget: Budget, usd: float, tokens: int) -> bool:
        return budget.has_room(usd, tokens)


def _queued(parts: Sequence[Part]) -> int:
    return sum(one.tokens for one in parts if one.is_at_server)
