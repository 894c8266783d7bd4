"""How many gold records all shards have compared, and how many labels of them were right: a sum, judged by each."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.leases.messages import Grant

NONE = (0, 0)


@dataclass(slots=True)
class SharedGoldCounts:
    """A shard's side: how many labels are right and how many were compared, here and in the other shards.

    `on_change` is called once others have compared more. All of it changes.
    """

    own: tuple[int, int] = NONE
    reported: tuple[int, int] = NONE
    others: tuple[int, int] = NONE
    on_change: Callable[[], None] = lambda: None

    def request_field(self) -> list[int] | None:
        """What the next exchange says of it; a lease server that was started again hears it too."""
        self.reported = self.own
        return list(self.own) if self.own[1] else None

    def on_grant(self, grant: Grant) -> None:
        """Take over what the lease server knows of the others."""
        before, self.others = self.others, (grant.gold[0], grant.gold[1]) if grant.gold else NONE
        if before != self.others:
            self.on_change()
