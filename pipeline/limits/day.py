"""Requests a day, kept across restarts: calls are taken from leases that are written down before they are used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

Used = Callable[[str], Awaitable[int]]
Add = Callable[[str, int], Awaitable[None]]


class DayMeter:
    """At most `limit` requests in a UTC day.

    `used(day)` and `add(day, n)` keep the count (the ledger does). A lease is added before its first call leaves, so a
    killed process can only have counted too many, never too few. `wall` is seconds since 1970-01-01 UTC.
    """

    def __init__(self, limit: int, *, used: Used, add: Add, wall: Callable[[], float]) -> None:
        self.limit = limit
        self._used, self._add, self._wall = used, add, wall
        self._lease_size = max(1, min(100, limit // 100))
        # All state that changes.
        self._day = ""
        self._lease = 0
        self._unleased: int | None = None

    @property
    def left_today(self) -> int | None:
        """Requests that may still leave today, as far as this process knows; None before the first."""
        return None if self._unleased is None else self._unleased + self._lease

    async def take(self) -> float:
        """Take one request: 0.0, or the seconds until the day's count begins anew."""
        day = self._today()
        if day != self._day:
            self._day, self._lease = day, 0
        if self._lease == 0:
            free = self.limit - await self._used(day)
            self._unleased = max(0, free)
            if free <= 0:
                return self._until_tomorrow_s()
            lease = min(self._lease_size, free)
            # Only then: a lease whose writing was cancelled may count too many, but is not used.
            await self._add(day, lease)
            self._lease = lease
            self._unleased = free - lease
        self._lease -= 1
        return 0.0

    async def close(self) -> None:
        """Give back what of the lease was not used; may be called twice."""
        if self._lease and self._day:
            lease, self._lease = self._lease, 0
            await self._add(self._day, -lease)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _today(self) -> str:
        return self._now().date().isoformat()

    def _until_tomorrow_s(self) -> float:
        now = self._now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return (midnight - now).total_seconds()
