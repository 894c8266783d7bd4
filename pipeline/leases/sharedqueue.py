"""Shares the API's batch queue among shards: how much of it each shard uses, and what is known about its size.

A grant is saved first. It counts until the shard reports that the batch is closed, because a shard that died may have
left a batch at the API. So the shards together never exceed the limit, even if shards or the lease server are killed.
The first part of the run is sent alone, until one of its answers has shown that the requests are valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pipeline import codec
from pipeline.leases.messages import LeaseRequest
from pipeline.limits import DayMeter, QueueLimit
from pipeline.store import Ledger

_KEY = "rooms"


class SharedQueue:
    """The tokens that each shard may have in the queue, by part number. `proven`: the run has labels."""

    def __init__(self, ledger: Ledger, enqueued_tokens: int | None = None, *, proven: bool = False) -> None:
        self._ledger = ledger
        self._configured = enqueued_tokens
        # Mutable state: the limit, each shard's parts, whether an answer has shown that the requests are right, and
        # the number of changes to all that.
        self.limit = QueueLimit(enqueued_tokens)
        self._reserved: dict[int, dict[int, int]] = {}
        self.proven = proven
        self.version = 0
        self._counting = asyncio.Lock()

    async def load(self) -> None:
        """Load what an earlier lease server granted and learned."""
        known = codec.loads(await self._ledger.meta_get(_KEY) or "{}")
        self.proven = self.proven or known.get("proven", False)
        self.limit = QueueLimit(self._configured, known.get("learned"), known.get("most_lines"))
        for shard in known.get("shards", ()):
            parts = codec.loads(await self._ledger.meta_get(f"{_KEY}.{shard}") or "{}")
            self._reserved[shard] = {int(part): tokens for part, tokens in parts.items()}

    @property
    def parts(self) -> int:
        """How many parts may be in the queue."""
        return sum(map(len, self._reserved.values()))

    async def on_request(self, request: LeaseRequest, day: DayMeter, *, is_open: bool) -> tuple[dict[str, Any], str]:
        """Return the grant's fields about batches, and why the day has no room for the part that is to be sent, if so.

        No part is granted unless the run `is_open`.
        """
        parts, lacks = request.parts, ""
        if parts is None:
            return {}, ""
        await self._hold(request.shard, dict(zip(parts[::2], parts[1::2], strict=True)), proven=request.proven)
        fields: dict[str, Any] = {}
        if request.refused_part is not None:
            fields["is_too_large"] = await self._refused(request.shard, *request.refused_part)
        if request.room is not None and is_open:
            part, tokens, lines, counts = request.room
            if self._take(request.shard, part, tokens):
                lacks = await self._day_shortage(day, lines * counts)
                if lacks:
                    self._leave(request.shard, part)
                else:
                    await self._write(request.shard)
                fields["room"] = not lacks
        return {**fields, "queue": self._facts()}, lacks

    def _facts(self) -> dict[str, int | bool | None]:
        limit = self.limit
        return {
            "proven": self.proven,
            "most_lines": limit.most_lines,
            "is_learned": limit.learned is not None,
            "version": self.version,
        }

    async def _day_shortage(self, day: DayMeter, lines: int) -> str:
        """Count the requests against the day. Returns why there is no room for them, or an empty text."""
        async with self._counting:
            is_over = lines > 0 and await day.take_many(lines) > 0
        return f"the {day.limit or 0:,} requests a day leave no room for a batch of {lines:,}" if is_over else ""

    def _take(self, shard: int, part: int, tokens: int) -> bool:
        """Reserve room for the part, if there is any. The caller saves this before the shard learns of it."""
        is_reserved = part in self._reserved.get(shard, {})
        if not is_reserved and self.parts and not (self.proven and self.limit.fits(tokens, self._queued())):
            return False
        self._reserved.setdefault(shard, {})[part] = tokens
        return True

    def _leave(self, shard: int, part: int) -> int:
        """Remove the part. Returns the tokens that are still in the queue."""
        self._reserved.get(shard, {}).pop(part, None)
        return self._queued()

    async def _hold(self, shard: int, parts: Mapping[int, int], *, proven: bool) -> None:
        """Store which parts the shard has in the queue, and whether one has shown that the requests are valid."""
        is_news, self.proven = proven and not self.proven, self.proven or proven
        if is_news or self._reserved.get(shard, {}) != parts:
            self._reserved[shard] = dict(parts)
            await self._write(shard)

    async def _refused(self, shard: int, part: int, tokens: int, lines: int) -> bool:
        """Learn from a refusal. Returns whether the part alone is too large."""
        is_too_large = self.limit.refused(tokens, lines, self._leave(shard, part))
        await self._write(shard)
        return is_too_large

    async def _write(self, shard: int) -> None:
        """Save what is known, and the parts of this shard."""
        self.version += 1
        limit, parts = self.limit, {str(part): tokens for part, tokens in self._reserved.get(shard, {}).items()}
        await self._ledger.meta_set(f"{_KEY}.{shard}", codec.dumps(parts).decode())
        known = {"proven": self.proven, "learned": limit.learned, "most_lines": limit.most_lines}
        await self._ledger.meta_set(_KEY, codec.dumps({**known, "shards": sorted(self._reserved)}).decode())

    def _queued(self) -> int:
        return sum(sum(one.values()) for one in self._reserved.values())
