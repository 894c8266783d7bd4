"""Computes when calls would be done under a pace, a daily limit, and hours. Pure arithmetic."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pipeline.limits import Hours

#: The most steps (from one start or end of hours, or midnight, to the next) to simulate: more than twenty years.
MOST_STEPS = 20_000
#: The most days to search for one whose requests are used up. They soon repeat.
MOST_DAYS = 30
#: A smaller share of a call is a rounding error.
_DUST = 1e-6
#: Three hundred years, because dates have an end.
_TOO_LONG_S = 1e10


@dataclass(frozen=True, slots=True)
class PacingLimits:
    """The limits that pace calls. `per_s` is infinite if no limit is known.

    Days are in UTC; `used_today` calls of today's `per_day` are already used.
    """

    per_s: float = math.inf
    per_day: int | None = None
    used_today: int = 0
    hours: Hours | None = None


@dataclass(frozen=True, slots=True)
class Simulation:
    """The seconds until the end (infinite: more than twenty years), and the calls made by then."""

    seconds: float
    calls: float


def simulate(calls: float, start: datetime, pacing: PacingLimits, until: datetime | None = None) -> Simulation:
    """Simulate from `start` until `calls` calls are made or the time is up."""
    begin = now = start.astimezone(UTC)
    left, today = calls, _day_left(pacing, pacing.used_today)
    for _ in range(MOST_STEPS):
        if left <= _DUST:
            return Simulation((now - begin).total_seconds(), calls)
        step_s, made = _step(now, left, today, pacing)
        if step_s > _TOO_LONG_S:
            break
        if until is not None and now + timedelta(seconds=step_s) >= until:
            within_s = max(0.0, (until - now).total_seconds())
            some = min(made, within_s * pacing.per_s if within_s else 0.0)
            return Simulation((until - begin).total_seconds(), calls - left + some)
        passed = now + timedelta(seconds=step_s)
        today = _day_left(pacing) if passed.date() != now.date() else today - made
        now, left = passed, left - made
    return Simulation(math.inf, calls - left)


def until_used_up(calls: float, start: datetime, pacing: PacingLimits) -> Simulation | None:
    """Simulate until a day's requests are used up with calls left; None if that never happens."""
    free, now, made = replace(pacing, per_day=None), start.astimezone(UTC), 0.0
    today = _day_left(pacing, pacing.used_today)
    for _ in range(MOST_DAYS):
        until = now + timedelta(seconds=_until_midnight_s(now))
        by_night = simulate(calls - made, now, free, until).calls
        if by_night > today + _DUST:
            return Simulation((now - start).total_seconds() + simulate(today, now, free).seconds, made + today)
        made += by_night
        if calls - made <= _DUST:
            return None
        now, today = until, _day_left(pacing)
    return None


def _day_left(pacing: PacingLimits, used: int = 0) -> float:
    return math.inf if pacing.per_day is None else max(0.0, float(pacing.per_day - used))


def _step(now: datetime, left: float, today: float, pacing: PacingLimits) -> tuple[float, float]:
    """Return the seconds of the next step, and the calls made in it."""
    midnight_s = math.inf if pacing.per_day is None else _until_midnight_s(now)
    wait_s = 0.0 if pacing.hours is None else pacing.hours.wait_s(now)
    if wait_s > 0:
        return min(wait_s, midnight_s), 0.0
    if today <= _DUST:
        # The hours may end before the day does. The wait for them begins with the new day.
        return midnight_s, 0.0
    open_s = math.inf if pacing.hours is None else pacing.hours.closes_in_s(now)
    span_s = min(open_s, midnight_s)
    made = min(left, today, span_s * pacing.per_s)
    return made / pacing.per_s if made in (left, today) else span_s, made


def _until_midnight_s(now: datetime) -> float:
    """Return the seconds until the next day in UTC."""
    tomorrow = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
    return (tomorrow - now).total_seconds()
