"""Counts how many gold records all shards have compared, and how many of their labels were right."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.leases.messages import Grant

NONE = (0, 0)


@dataclass(slots=True)
class SharedGoldCounts:
    """The counts of right labels and of compared labels, in this shard and in the others.

    `on_change` is called when the counts of the others have changed. All fields are mutable.
    """

    own: tuple[int, int] = NONE
    reported: tuple[int, int] = NONE
    others: tuple[int, int] = NONE
    on_change: Callable[[], None] = lambda: None

    def request_field(self) -> list[int] | None:
        """Return the field of the next request. It is always sent, so that a restarted lease server has it too."""
        self.reported = self.own
        return list(self.own) if self.own[1] else None

    def on_grant(self, grant: Grant) -> None:
        """Store the counts of the other shards."""
        before, self.others = self.others, (grant.gold[0], grant.gold[1]) if grant.gold else NONE
        if before != self.others:
            self.on_change()
