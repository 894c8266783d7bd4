"""The budget of a run that is shared by shards: each is handed a part of it, and hands back what it did not spend.

What was handed out is written down first and counts until the shard says what it has spent: a shard that died may have
spent it. So the sum of what shards can have spent never passes the caps. Money is picodollars.
"""

from __future__ import annotations

import asyncio

from pipeline import codec
from pipeline.limits import PICO_PER_USD
from pipeline.store import Ledger
from pipeline.units import exact_dollars

#: A shard is handed at least what its next call needs, and at most this part of what is left, times the shards.
PARTS = 8
_KEY = "purses"

#: Picodollars and tokens; None: no cap.
Caps = tuple[int | None, int | None]


class ShardBudgets:
    """What each shard may have spent in all. `before` is what the run had spent before there were shards."""

    def __init__(self, ledger: Ledger, caps: Caps, before: tuple[int, int] = (0, 0)) -> None:
        self._ledger = ledger
        self._before = before
        # All state that changes: the caps, and what each shard was handed.
        self.caps = caps
        self.by_shard: dict[int, tuple[int, int]] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Take over what an earlier lease server has handed out."""
        stored = codec.loads(await self._ledger.meta_get(_KEY) or "{}")
        self.by_shard = {int(shard): (usd, tokens) for shard, (usd, tokens) in stored.items()}

    @property
    def handed(self) -> tuple[int, int]:
        """What the run can have spent at most."""
        usd, tokens = zip(self._before, *self.by_shard.values(), strict=True)
        return sum(usd), sum(tokens)

    def caps_of(self, shard: int) -> Caps:
        """What the shard may have spent in all."""
        usd, tokens = self.by_shard.get(shard, (0, 0))
        return (None if self.caps[0] is None else usd, None if self.caps[1] is None else tokens)

    async def begin(self, shard: int, spent: tuple[int, int]) -> None:
        """What the shard has spent counts, also where nobody knew of it: in earlier sessions, or without a cap."""
        before = self.by_shard.get(shard, (0, 0))
        await self._record(shard, (max(before[0], spent[0]), max(before[1], spent[1])))

    async def fill(self, shard: int, needs: tuple[int, int], shards: int) -> int | None:
        """Hand one of so many shards so much that it may have spent `needs`; else gives the unit that lacks.

        Units are 0 for money and 1 for tokens.
        """
        usd, tokens = self.by_shard.get(shard, (0, 0))
        more_usd, more_tokens = self._grantable(0, usd, needs[0], shards), self._grantable(1, tokens, needs[1], shards)
        if more_usd is None or more_tokens is None:
            return 0 if more_usd is None else 1
        await self._record(shard, (usd + more_usd, tokens + more_tokens))
        return None

    async def hand_back(self, shard: int, spent: tuple[int, int]) -> None:
        """What the shard did not spend goes back."""
        await self._record(shard, spent)

    def describe_shortage(self, unit: int) -> str:
        """Why no more of a unit is handed out. It begins with the key of the cap."""
        cap, handed = self.caps[unit] or 0, self.handed[unit]
        if unit == 0:
            text = f"limits.budget_usd = {cap / PICO_PER_USD:g}: {exact_dollars(handed / PICO_PER_USD)} is handed out"
        else:
            text = f"limits.budget_tokens = {cap}: {handed:,} are handed out"
        return f"{text} to the shards, and one more call could cost more than what is left"

    def unspent(self, shard: int, spent: tuple[int, int]) -> bool:
        """Whether the shard holds more than that of what is capped."""
        handed = zip(self.caps, self.by_shard.get(shard, (0, 0)), spent, strict=True)
        return any(cap is not None and has > was for cap, has, was in handed)

    def _grantable(self, unit: int, has: int, need: int, shards: int) -> int | None:
        """How much more of a unit is handed out; None where it is not there."""
        cap, lacks = self.caps[unit], max(0, need - has)
        if cap is None or not lacks:
            return 0
        left = cap - self.handed[unit]
        return None if lacks > left else max(lacks, left // (PARTS * shards))

    async def _record(self, shard: int, amount: tuple[int, int]) -> None:
        before = self.by_shard.get(shard, (0, 0))
        if before == amount:
            return
        # More is counted from now on, and less only once it is written down.
        self.by_shard[shard] = (max(before[0], amount[0]), max(before[1], amount[1]))
        async with self._writing:
            handed = {str(one): two for one, two in {**self.by_shard, shard: amount}.items()}
            await self._ledger.meta_set(_KEY, codec.dumps(handed).decode())
            self.by_shard[shard] = amount
