"""Which process has each shard, where shards keep their state at an address: the last one that took it over.

Such a shard has no lock that others can see. A node that was thought lost may come back, and must not go on.
"""

from __future__ import annotations

import asyncio

from pipeline import codec
from pipeline.errors import InputError
from pipeline.leases.messages import LeaseRequest
from pipeline.store import Ledger

_KEY = "claims"


class ShardOwners:
    """Who has taken which shard over, in the lease server's book: one that is started again knows it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = asyncio.Lock()
        # All state that changes: the fence and the session of each shard.
        self._owners: dict[int, tuple[int, str]] = {}

    async def load(self) -> None:
        """Take over what an earlier lease server knew."""
        stored = codec.loads(await self._ledger.meta_get(_KEY) or "{}")
        self._owners = {int(shard): (fence, session) for shard, (fence, session) in stored.items()}

    async def take(self, shard: int, session: str) -> int:
        """The shard is this session's from now on; its fence, which is greater than all before it."""
        async with self._turn:
            fence = self._owners.get(shard, (0, ""))[0] + 1
            owners = {**self._owners, shard: (fence, session)}
            await self._ledger.meta_set(_KEY, codec.dumps({str(one): two for one, two in owners.items()}).decode())
            self._owners = owners
            return fence

    def refuse(self, request: LeaseRequest) -> None:
        """Raises InputError for a session whose shard another one has taken over."""
        fence, session = self._owners.get(request.shard, (0, request.session))
        if session != request.session:
            raise InputError(
                f"shard {request.shard} was taken over by another process (number {fence}), because this one was "
                "presumed lost. Let the other one continue"
            )
