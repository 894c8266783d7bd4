"""The provider's queue of batches, shared by shards: who holds how much of it, and what has been learned about it.

What is granted is written down first, and counts until the shard says that the batch is closed: a shard that died may
have a batch at the server. So what shards can have queued never passes the limit, over kills of shards and of the lease
server. The first part goes alone, once for the whole run, until one of its answers has shown that the requests are
right.
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
    """What each shard may have in the queue: tokens by the number of the part. `proven`: the run has labels."""

    def __init__(self, ledger: Ledger, enqueued_tokens: int | None = None, *, proven: bool = False) -> None:
        self._ledger = ledger
        self._configured = enqueued_tokens
        # All state that changes: the limit, who holds what, whether an answer has shown that the requests are right,
        # and how often something of it has changed.
        self.limit = QueueLimit(enqueued_tokens)
        self._reserved: dict[int, dict[int, int]] = {}
        self.proven = proven
        self.version = 0
        self._counting = asyncio.Lock()

    async def load(self) -> None:
        """Take over what an earlier lease server has granted and learned."""
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
        """What a shard is told of its batches, and why the day has no room for the part that it wants to send, if so.

        Nothing goes out unless the run `is_open`.
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
        """Why the day has no room for so many requests; empty where it has, and they are counted."""
        async with self._counting:
            is_over = lines > 0 and await day.take_many(lines) > 0
        return f"the {day.limit or 0:,} requests a day leave no room for a batch of {lines:,}" if is_over else ""

    def _take(self, shard: int, part: int, tokens: int) -> bool:
        """Whether there is room for the part, which counts from now on. It is granted once that is written down."""
        is_reserved = part in self._reserved.get(shard, {})
        if not is_reserved and self.parts and not (self.proven and self.limit.fits(tokens, self._queued())):
            return False
        self._reserved.setdefault(shard, {})[part] = tokens
        return True

    def _leave(self, shard: int, part: int) -> int:
        """The part is not in the queue; gives the tokens of those that are."""
        self._reserved.get(shard, {}).pop(part, None)
        return self._queued()

    async def _hold(self, shard: int, parts: Mapping[int, int], *, proven: bool) -> None:
        """All parts that a shard has in the queue, and whether one has shown that the requests are right."""
        is_news, self.proven = proven and not self.proven, self.proven or proven
        if is_news or self._reserved.get(shard, {}) != parts:
            self._reserved[shard] = dict(parts)
            await self._write(shard)

    async def _refused(self, shard: int, part: int, tokens: int, lines: int) -> bool:
        """The server had no room for the part; gives whether it alone is too large."""
        is_too_large = self.limit.refused(tokens, lines, self._leave(shard, part))
        await self._write(shard)
        return is_too_large

    async def _write(self, shard: int) -> None:
        """Write down what is known, and what a shard holds."""
        self.version += 1
        limit, parts = self.limit, {str(part): tokens for part, tokens in self._reserved.get(shard, {}).items()}
        await self._ledger.meta_set(f"{_KEY}.{shard}", codec.dumps(parts).decode())
        known = {"proven": self.proven, "learned": limit.learned, "most_lines": limit.most_lines}
        await self._ledger.meta_set(_KEY, codec.dumps({**known, "shards": sorted(self._reserved)}).decode())

    def _queued(self) -> int:
        return sum(sum(one.values()) for one in self._reserved.values())
