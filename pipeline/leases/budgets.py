"""Divides the budget of a run among its shards. Each shard gets a part and returns what it did not spend.

A part is saved before the shard learns of it. It counts as spent until the shard reports otherwise, because a shard
that died may have spent it. So the shards together can never exceed the caps. Money is in picodollars.
"""

from __future__ import annotations

import asyncio

from pipeline import codec
from pipeline.limits import PICO_PER_USD
from pipeline.store import Ledger
from pipeline.units import exact_dollars

#: A shard gets what its next call needs, or, if that is more, what is left divided by this and by the number of shards.
PARTS = 8
_KEY = "purses"

#: Picodollars and tokens; None means no cap.
Caps = tuple[int | None, int | None]


class ShardBudgets:
    """What each shard may spend in total. `before` is what the run spent before there were shards."""

    def __init__(self, ledger: Ledger, caps: Caps, before: tuple[int, int] = (0, 0)) -> None:
        self._ledger = ledger
        self._before = before
        # Mutable state: the caps, and the part of each shard.
        self.caps = caps
        self.by_shard: dict[int, tuple[int, int]] = {}
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Load what an earlier lease server granted."""
        stored = codec.loads(await self._ledger.meta_get(_KEY) or "{}")
        self.by_shard = {int(shard): (usd, tokens) for shard, (usd, tokens) in stored.items()}

    @property
    def handed(self) -> tuple[int, int]:
        """The most that the run can have spent."""
        usd, tokens = zip(self._before, *self.by_shard.values(), strict=True)
        return sum(usd), sum(tokens)

    def caps_of(self, shard: int) -> Caps:
        """Return the most that this shard may spend in total."""
        usd, tokens = self.by_shard.get(shard, (0, 0))
        return (None if self.caps[0] is None else usd, None if self.caps[1] is None else tokens)

    async def begin(self, shard: int, spent: tuple[int, int]) -> None:
        """Count what the shard has spent, even in an earlier session or before there was a cap."""
        before = self.by_shard.get(shard, (0, 0))
        await self._record(shard, (max(before[0], spent[0]), max(before[1], spent[1])))

    async def fill(self, shard: int, needs: tuple[int, int], shards: int) -> int | None:
        """Raise the part of a shard so that it may spend `needs` in total, or return the unit that is short.

        Unit 0 is money and unit 1 is tokens. `shards` is the number of shards.
        """
        usd, tokens = self.by_shard.get(shard, (0, 0))
        more_usd, more_tokens = self._grantable(0, usd, needs[0], shards), self._grantable(1, tokens, needs[1], shards)
        if more_usd is None or more_tokens is None:
            return 0 if more_usd is None else 1
        await self._record(shard, (usd + more_usd, tokens + more_tokens))
        return None

    async def hand_back(self, shard: int, spent: tuple[int, int]) -> None:
        """Return what the shard did not spend."""
        await self._record(shard, spent)

    def describe_shortage(self, unit: int) -> str:
        """Return why no more of this unit is granted. The text begins with the config key of the cap."""
        cap, handed = self.caps[unit] or 0, self.handed[unit]
        if unit == 0:
            text = f"limits.budget_usd = {cap / PICO_PER_USD:g}: {exact_dollars(handed / PICO_PER_USD)} is handed out"
        else:
            text = f"limits.budget_tokens = {cap}: {handed:,} are handed out"
        return f"{text} to the shards, and one more call could cost more than what is left"

    def unspent(self, shard: int, spent: tuple[int, int]) -> bool:
        """Whether the shard still has more than `spent` of a unit with a cap."""
        handed = zip(self.caps, self.by_shard.get(shard, (0, 0)), spent, strict=True)
        return any(cap is not None and has > was for cap, has, was in handed)

    def _grantable(self, unit: int, has: int, need: int, shards: int) -> int | None:
        """Return how much more of a unit to grant; None if too little is left."""
        cap, lacks = self.caps[unit], max(0, need - has)
        if cap is None or not lacks:
            return 0
        left = cap - self.handed[unit]
        return None if lacks > left else max(lacks, left // (PARTS * shards))

    async def _record(self, shard: int, amount: tuple[int, int]) -> None:
        before = self.by_shard.get(shard, (0, 0))
        if before == amount:
            return
        # An increase counts immediately, a decrease only once it is saved.
        self.by_shard[shard] = (max(before[0], amount[0]), max(before[1], amount[1]))
        async with self._writing:
            handed = {str(one): two for one, two in {**self.by_shard, shard: amount}.items()}
            await self._ledger.meta_set(_KEY, codec.dumps(handed).decode())
            self.by_shard[shard] = amount
