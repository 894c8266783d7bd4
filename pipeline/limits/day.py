"""Limits requests per day, across restarts: calls are taken from leases that are saved before they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from pipeline.units import DAY_S

Used = Callable[[str], Awaitable[int]]
Add = Callable[[str, int], Awaitable[None]]


def count_midnights(now: datetime, seconds: float) -> int:
    """Return how many UTC days begin within this many seconds."""
    now = now.astimezone(UTC)
    return ((now + timedelta(seconds=seconds)).date() - now.date()).days


class DayMeter:
    """At most `limit` requests in a UTC day; None: they are only counted, for a limit that is set later.

    `used(day)` and `add(day, n)` keep the count (in the ledger). A lease is added before its first call leaves, so a
    killed process can only have counted too many, never too few. Without a limit nothing waits for the disk: the count
    is saved with a write that happens anyway (`take_uncounted`), and a kill may lose what came since the last one.
    `wall` is seconds since 1970-01-01 UTC.
    """

    def __init__(self, limit: int | None, *, used: Used, add: Add, wall: Callable[[], float]) -> None:
        self._used, self._add, self._wall = used, add, wall
        # Mutable state: the limit; and by day, what is left of the lease, what is not saved yet, what is being saved,
        # and what no lease has taken, as far as this process knows.
        self.limit = limit
        self._lease: Counter[str] = Counter()
        self._uncounted: Counter[str] = Counter()
        self._on_the_way: Counter[str] = Counter()
        self._unleased: dict[str, int] = {}

    @property
    def left_today(self) -> int | None:
        """Requests that may still leave today, as far as this process knows; None: no limit, or nothing known yet."""
        if self.limit is None or not self._unleased:
            return None
        today = self._today()
        return self._unleased.get(today, self.limit) + self._lease[today]

    def room(self, seconds: float = 0.0) -> int | None:
        """Return how many requests may leave within this many seconds, as far as is known; None without a limit."""
        today = self.left_today
        if self.limit is None or today is None:
            return None
        return today + self.limit * count_midnights(self._now(), seconds)

    async def refresh(self) -> None:
        """Find out what is left of the day."""
        if self.limit is not None:
            await self._free(self._today(), self.limit)

    def set_limit(self, limit: int | None) -> None:
        """Set another limit. All calls of the day count toward it, whatever the limit was when they left."""
        self._give_back()
        self.limit = limit
        self._unleased.clear()

    async def take(self) -> float:
        """Take one request. Return 0.0, or the seconds until the day's count starts again."""
        day = self._today()
        if self.limit is None:
            self._uncounted[day] += 1
            return 0.0
        if not self._lease[day] and not await self._take_lease(day, self.limit):
            return self._until_tomorrow_s()
        self._lease[day] -= 1
        return 0.0

    def return_unused(self, count: int) -> None:
        """Give back this many requests that were taken and will not leave."""
        self._uncounted[self._today()] -= count

    async def take_many(self, count: int) -> float:
        """Count this many requests at once, which leave as a batch. Return 0.0, or the seconds until they fit."""
        self._give_back()
        await self._write_uncounted()
        day = self._today()
        if self.limit is not None:
            if count > (free := await self._free(day, self.limit)):
                return self._until_tomorrow_s()
            self._unleased[day] = free - count
        await self._add(day, count)
        return 0.0

    async def _free(self, day: str, limit: int) -> int:
        """Return what no lease of the day has taken."""
        # Read first: what arrives meanwhile is then counted twice for now, and would otherwise be missed.
        on_the_way = self._on_the_way[day]
        self._unleased[day] = max(0, limit - await self._used(day) - on_the_way)
        return self._unleased[day]

    async def _take_lease(self, day: str, limit: int) -> bool:
        await self._write_uncounted()
        free = await self._free(day, limit)
        if free <= 0:
            return False
        lease = min(max(1, min(100, limit // 100)), free)
        # Only now: a lease whose write was canceled may count too many, but is not used.
        await self._add(day, lease)
        self._lease[day] = lease
        self._unleased[day] = free - lease
        return True

    def _give_back(self) -> None:
        """Give back the unused part of the lease."""
        self._uncounted.subtract(self._lease)
        self._lease.clear()

    # -- what is not saved yet -----------------------------------------------------------------------------------

    def take_uncounted(self) -> Mapping[str, int]:
        """Take what must be added to the count, by day. `on_written` must follow."""
        counts = Counter({day: count for day, count in self._uncounted.items() if count})
        self._uncounted.clear()
        self._on_the_way.update(counts)
        return counts

    def on_written(self, counts: Mapping[str, int], *, ok: bool = True) -> None:
        """Note that it was added, or still must be. A write that was cut off may have been done anyway.

        So what would be given back is not given back again: too many may be counted, never too few.
        """
        self._on_the_way.subtract(counts)
        if not ok:
            self._uncounted.update({day: count for day, count in counts.items() if count > 0})

    async def _write_uncounted(self) -> None:
        for day, count in self.take_uncounted().items():
            ok = False
            try:
                await self._add(day, count)
                ok = True
            finally:
                self.on_written({day: count}, ok=ok)

    async def close(self) -> None:
        """Give back the unused part of the lease, and save the rest. May be called twice."""
        self._give_back()
        await self._write_uncounted()

    # -- the clock -----------------------------------------------------------------------------------------------

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _today(self) -> str:
        return _name_of_day(int(self._wall() // DAY_S))

    def _until_tomorrow_s(self) -> float:
        now = self._now()
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return (midnight - now).total_seconds()


@lru_cache(maxsize=2)
def _name_of_day(days: int) -> str:
    """Return the day this many days after 1970-01-01, as 2026-12-01."""
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()
