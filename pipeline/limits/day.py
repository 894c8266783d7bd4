"""Requests a day, kept across restarts: calls are taken from leases that are written down before they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from pipeline.units import DAY_S

Used = Callable[[str], Awaitable[int]]
Add = Callable[[str, int], Awaitable[None]]


def count_midnights(now: datetime, seconds: float) -> int:
    """How many UTC days begin within so many seconds."""
    now = now.astimezone(UTC)
    return ((now + timedelta(seconds=seconds)).date() - now.date()).days


class DayMeter:
    """At most `limit` requests in a UTC day; None: they are counted only, for a limit that is set later.

    `used(day)` and `add(day, n)` keep the count (the ledger does). A lease is added before its first call leaves, so a
    killed process can only have counted too many, never too few. Without a limit nothing waits for the disk: what was
    counted goes with a write that happens anyhow (`take_uncounted`), and a kill may lose what came since the last one.
    `wall` is seconds since 1970-01-01 UTC.
    """

    def __init__(self, limit: int | None, *, used: Used, add: Add, wall: Callable[[], float]) -> None:
        self._used, self._add, self._wall = used, add, wall
        # All state that changes: the limit; and by day, what is left of the lease, what is not written yet, what of
        # it is on its way, and what this process knows of the rest.
        self.limit = limit
        self._lease: Counter[str] = Counter()
        self._uncounted: Counter[str] = Counter()
        self._on_the_way: Counter[str] = Counter()
        self._unleased: dict[str, int] = {}

    @property
    def left_today(self) -> int | None:
        """Requests that may still leave today, as far as this process knows; None before the first."""
        if self.limit is None or not self._unleased:
            return None
        today = self._today()
        return self._unleased.get(today, self.limit) + self._lease[today]

    def room(self, seconds: float = 0.0) -> int | None:
        """Requests that may leave within so many seconds, as far as this process knows; None without a limit."""
        today = self.left_today
        if self.limit is None or today is None:
            return None
        return today + self.limit * count_midnights(self._now(), seconds)

    async def refresh(self) -> None:
        """Find out what is left of the day."""
        if self.limit is not None:
            await self._free(self._today(), self.limit)

    def set_limit(self, limit: int | None) -> None:
        """Take over another limit. All calls of the day count for it, whatever the limit was when they left."""
        self._give_back()
        self.limit = limit
        self._unleased.clear()

    async def take(self) -> float:
        """Take one request: 0.0, or the seconds until the day's count begins anew."""
        day = self._today()
        if self.limit is None:
            self._uncounted[day] += 1
            return 0.0
        if not self._lease[day] and not await self._take_lease(day, self.limit):
            return self._until_tomorrow_s()
        self._lease[day] -= 1
        return 0.0

    def return_unused(self, count: int) -> None:
        """So many that were taken will not leave."""
        self._uncounted[self._today()] -= count

    async def take_many(self, count: int) -> float:
        """Count so many requests at once, which leave as a batch: 0.0, or how long until they fit, in seconds."""
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
        """What no lease of the day has taken."""
        # Looked at first: if it arrives meanwhile it is counted twice for now, else it would be missed.
        on_the_way = self._on_the_way[day]
        self._unleased[day] = max(0, limit - await self._used(day) - on_the_way)
        return self._unleased[day]

    async def _take_lease(self, day: str, limit: int) -> bool:
        await self._write_uncounted()
        free = await self._free(day, limit)
        if free <= 0:
            return False
        lease = min(max(1, min(100, limit // 100)), free)
        # Only then: a lease whose writing was cancelled may count too many, but is not used.
        await self._add(day, lease)
        self._lease[day] = lease
        self._unleased[day] = free - lease
        return True

    def _give_back(self) -> None:
        """What of the lease was not used."""
        self._uncounted.subtract(self._lease)
        self._lease.clear()

    # -- what is not written yet ---------------------------------------------------------------------------------

    def take_uncounted(self) -> Mapping[str, int]:
        """What is to be added to the count, by day. `written` must follow."""
        counts = Counter({day: count for day, count in self._uncounted.items() if count})
        self._uncounted.clear()
        self._on_the_way.update(counts)
        return counts

    def on_written(self, counts: Mapping[str, int], *, ok: bool = True) -> None:
        """It was added; or not, and it stays to be added. A write that was cut off may have been done all the same.

        So what would be given back is not given back once more: too many may be counted, never too few.
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
        """Give back what of the lease was not used, and write down the rest; may be called twice."""
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
    """The day that is so many days after 1970-01-01, as 2026-12-01."""
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()
