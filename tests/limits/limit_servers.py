"""Servers that enforce a rate in the ways that servers do, and workers that go through the door to them."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import RateLimitedError, StoppedError
from pipeline.limits import Admission
from pipeline.records import Usage


class Server(Protocol):
    per_minute: float

    def take(self, now: float) -> float | None:
        """None: accepted. Else the seconds until one more would be."""


class Bucket:
    """Refilled steadily, holding as much as `span_s` gives; so much of it is there at the start."""

    def __init__(self, per_minute: float, span_s: float, filled: float = 1.0) -> None:
        self.per_minute, self.span_s, self._filled = per_minute, span_s, filled
        self._level: float | None = None
        self._at = 0.0

    def take(self, now: float) -> float | None:
        rate = self.per_minute / 60
        size = max(1.0, rate * self.span_s)
        self._level = size * self._filled if self._level is None else min(size, self._level + (now - self._at) * rate)
        self._at = now
        if self._level < 1:
            return (1 - self._level) / rate
        self._level -= 1
        return None


class Log:
    """So many in any window of `span_s`."""

    def __init__(self, per_minute: float, span_s: float) -> None:
        self.per_minute, self._span_s = per_minute, span_s
        self._stamps: deque[float] = deque()

    def take(self, now: float) -> float | None:
        while self._stamps and self._stamps[0] <= now - self._span_s:
            self._stamps.popleft()
        if len(self._stamps) >= self.per_minute * self._span_s / 60:
            return self._stamps[0] + self._span_s - now
        self._stamps.append(now)
        return None


class Moody:
    """Another server that refuses some calls whatever their rate, and asks these to wait."""

    def __init__(self, share: float, wait_s: float, server: Server | None = None) -> None:
        self.share, self._wait_s, self._server = share, wait_s, server
        self.per_minute = 0.0 if server is None else server.per_minute
        self._dice = random.Random(7)

    def take(self, now: float) -> float | None:
        if self._dice.random() < self.share:
            return self._wait_s
        return None if self._server is None else self._server.take(now)


@dataclass
class Seen:
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        return len(self.refused) / max(1, len(self.accepted) + len(self.refused))


async def run_against(
    server: Server,
    door: Admission,
    seconds: float,
    *,
    tells: bool,
    workers: int = 64,
    latency_s: float = 0.05,
    refusal_s: float | None = None,
) -> Seen:
    """Workers that want to call all the time. `tells`: a refusal says how long to wait; it takes as long as an answer,
    or `refusal_s`.
    """
    seen, chance, loop = Seen(), random.Random(1), asyncio.get_running_loop()

    async def call() -> None:
        permit, alone_s = await door.acquire(100), 0.0
        try:
            await asyncio.sleep(latency_s * 0.4 if refusal_s is None else refusal_s / 2)
            wait_s = server.take(loop.time())
            answer_s = latency_s * (0.2 + 0.8 * chance.random())
            await asyncio.sleep(answer_s if wait_s is None or refusal_s is None else refusal_s / 2)
            if wait_s is None:
                seen.accepted.append(loop.time())
                permit.settle(Usage(80, 20))
                door.on_answer(Usage(80, 20), None, loop.time() - permit.sent_at)
            else:
                seen.refused.append(loop.time())
                alone_s = door.on_refusal(RateLimitedError(retry_after_s=wait_s if tells else None), permit.sent_at)
        finally:
            permit.close()
        await door.gate.pause(alone_s)

    async def work() -> None:
        try:
            while True:
                await call()
        except StoppedError:
            return

    loop.call_later(seconds, door.gate.stop, StoppedError())
    await asyncio.gather(*(work() for _ in range(workers)))
    return seen
