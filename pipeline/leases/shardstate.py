"""Stores what the lease service knows about one shard."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pipeline.leases.messages import Grant


@dataclass(slots=True, eq=False)
class ShardState:
    """What the lease service knows about one shard. All fields are mutable."""

    session: str = ""
    number: int = -1
    wants: int = 0
    tokens: int = 1
    in_flight: int = 0
    credit: int = 0
    #: Granted, and neither sent nor returned.
    out: int = 0
    expires_at: float = float("inf")
    last_report_at: float = float("-inf")
    #: It has asked for calls; it has reported its end.
    has_begun: bool = False
    is_over: bool = False
    #: The most that it has spent and in flight, whether some of that may be returned, and whether it knows the caps.
    spent: tuple[int, int] = (0, 0)
    holds: bool = False
    is_bound: bool = True
    #: The settings that it was ordered to change.
    overrides: dict[str, str] | None = None
    #: How many labels of its gold records were right, and how many were compared.
    gold: tuple[int, int] = (0, 0)
    last: Grant | None = None
    is_asking: bool = False
    shrink: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def begin(self, session: str) -> None:
        """Start over for a new process of the shard."""
        self.session, self.last, self.overrides = session, None, None
        self.has_begun = self.is_over = False
