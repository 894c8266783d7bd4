"""Tracks which process owns each shard that saves its state at an address: the last one to take it over.

Such a shard has no lock that other machines can see. A node that was presumed lost may return and must not continue.
"""

from __future__ import annotations

import asyncio

from pipeline import codec
from pipeline.errors import InputError
from pipeline.leases.messages import LeaseRequest
from pipeline.store import Ledger

_KEY = "claims"


class ShardOwners:
    """The owner of each shard, stored in the lease server's database, so that a restarted server knows it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = asyncio.Lock()
        # Mutable state: the fence and the session of each shard.
        self._owners: dict[int, tuple[int, str]] = {}

    async def load(self) -> None:
        """Load what an earlier lease server stored."""
        stored = codec.loads(await self._ledger.meta_get(_KEY) or "{}")
        self._owners = {int(shard): (fence, session) for shard, (fence, session) in stored.items()}

    async def take(self, shard: int, session: str) -> int:
        """Make this session the owner of the shard. Returns its fence, which is greater than all earlier ones."""
        async with self._turn:
            fence = self._owners.get(shard, (0, ""))[0] + 1
            owners = {**self._owners, shard: (fence, session)}
            await self._ledger.meta_set(_KEY, codec.dumps({str(one): two for one, two in owners.items()}).decode())
            self._owners = owners
            return fence

    def refuse(self, request: LeaseRequest) -> None:
        """Raise InputError if another session has taken this shard over."""
        fence, session = self._owners.get(request.shard, (0, request.session))
        if session != request.session:
            raise InputError(
                f"shard {request.shard} was taken over by another process (number {fence}), because this one was "
                "presumed lost. Let the other one continue"
            )
