"""How many gold records all shards have compared, and how many labels of them were right: a sum, judged by each."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.leases.messages import Grant

NONE = (0, 0)


class SharedGoldCounts:
    """A shard's side: it tells its own counts, right and compared, and hears those of the others."""

    def __init__(self) -> None:
        # All state that changes: the counts, what of them was told, and who hears of those of the others.
        self._own: tuple[int, int] = NONE
        self._reported: tuple[int, int] = NONE
        self.others: tuple[int, int] = NONE
        self._at_news: Callable[[], None] = lambda: None

    def begin(self, at_news: Callable[[], None]) -> None:
        """From now on `at_news` hears that others have compared more."""
        self._at_news = at_news

    def tell(self, right: int, compared: int) -> None:
        """So many in all, in this session and before."""
        self._own = (right, compared)

    @property
    def is_news(self) -> bool:
        """Whether something is to be told."""
        return self._own != self._reported

    def request_field(self) -> list[int] | None:
        """What the next exchange says of it; a lease server that was started again hears it too."""
        self._reported = self._own
        return list(self._own) if self._own[1] else None

    def on_grant(self, grant: Grant) -> None:
        """What the lease server said."""
        before, self.others = self.others, (grant.gold[0], grant.gold[1]) if grant.gold else NONE
        if before != self.others:
            self._at_news()
