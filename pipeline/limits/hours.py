"""Decides when calls may leave by the wall clock: `run_between` and `stop_at`. Arithmetic only.

Calls may leave while the local clock shows a time within the hours. If clocks are put forward or back, the clock
counts, not a number of hours: a window that begins in the hour that is skipped begins where the clock goes on.
Moments are datetimes with a zone; the time between two of them is measured in real seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from pipeline.errors import ConfigError
from pipeline.units import DAY_S, duration

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")


class Hours:
    """The hours of a run. `run_between` is (from, to), over midnight if `to` is the earlier one.

    `zone` is the zone of the clock; None: this machine's. `now` may be in any zone. Raises ConfigError for an invalid
    time.
    """

    def __init__(self, run_between: tuple[str, str] | None, stop_at: str | None, *, zone: tzinfo | None = None) -> None:
        self._zone = zone
        self._between = None if run_between is None else _window(*run_between)
        self._stop_at_s = None if stop_at is None else _seconds(stop_at, "limits.stop_at") % DAY_S

    def is_open(self, now: datetime) -> bool:
        """Whether calls may leave."""
        return self._shows_open(self._clock_s(now.astimezone(UTC)))

    def wait_s(self, now: datetime) -> float:
        """Return the seconds until calls may leave; 0 inside the hours."""
        if self._between is None or self.is_open(now):
            return 0.0
        return self._until_s(now, self._between[0], lambda _, __, after: self._shows_open(after))

    def closes_in_s(self, now: datetime) -> float:
        """Return the seconds until no more calls may leave; 0 outside the hours, infinity if they never end."""
        if not self.is_open(now):
            return 0.0
        if self._between is None or self._between == (0, DAY_S):
            return math.inf
        return self._until_s(now, self._between[1] % DAY_S, lambda _, __, after: not self._shows_open(after))

    def ends_at(self, started: datetime) -> datetime | None:
        """Return the next time after the start that the clock shows or passes `stop_at`; None without one."""
        mark = self._stop_at_s
        if mark is None:
            return None
        seconds = self._until_s(started, mark, lambda before, put_s, _: 0 <= (mark - before) % DAY_S <= put_s)
        return (started.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(self._zone)

    def spans(self, now: datetime, until_s: float) -> list[tuple[float, float]]:
        """Return when calls may leave within this many seconds: from and to, in seconds from now."""
        found, at_s = list[tuple[float, float]](), 0.0
        while True:
            at_s += math.ceil(self.wait_s(now + timedelta(seconds=at_s)))  # up, so that it is open by then
            if at_s >= until_s:
                return found
            closes_s = at_s + self.closes_in_s(now + timedelta(seconds=at_s))
            found.append((at_s, min(until_s, closes_s)))
            if closes_s >= until_s:
                return found
            at_s = math.ceil(closes_s)

    # -- for a person --------------------------------------------------------------------------------------------

    def waiting(self, now: datetime) -> str:
        """Return why nothing leaves, and until when by the clock; empty inside the hours."""
        wait_s = self.wait_s(now)
        if self._between is None or not wait_s:
            return ""
        opens = (now.astimezone(UTC) + timedelta(seconds=wait_s)).astimezone(self._zone)
        hours = f"{_clock_time(self._between[0])}-{_clock_time(self._between[1])}"
        return f"outside the hours {hours}, until {opens:%H:%M}"

    def ending(self, now: datetime, ends_at: datetime) -> str:
        """Return when the run ends by `stop_at`, and how long that is."""
        left_s = (ends_at.astimezone(UTC) - now.astimezone(UTC)).total_seconds()
        end_time = f"{ends_at.astimezone(self._zone):%H:%M}"
        return f"stops at {end_time} (in {duration(left_s)})" if left_s > 0 else f"stop_at {end_time} is reached"

    # -- the clock -----------------------------------------------------------------------------------------------

    def _clock_s(self, moment: datetime) -> float:
        """Return what the clock shows, in seconds since its midnight."""
        local = moment.astimezone(self._zone)
        return local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6

    def _shows_open(self, clock_s: float) -> bool:
        if self._between is None:
            return True
        begin, end = self._between
        return begin <= clock_s < end if begin < end else clock_s >= begin or clock_s < end

    def _until_s(self, now: datetime, mark_s: int, reached: Callable[[float, float, float], bool]) -> float:
        """Return the seconds until the clock shows `mark_s`, or is put forward or back so that it is reached.

        Between two changes of the clock, time just passes, so the search goes from change to change. `reached` gets
        what the clock would have shown at a change, the seconds it is put forward, and what it shows.
        """
        begin = here = now.astimezone(UTC)
        while True:
            ahead_s = (mark_s - self._clock_s(here)) % DAY_S or DAY_S
            there = here + timedelta(seconds=ahead_s)
            if self._offset(there) == self._offset(here):
                return (there - begin).total_seconds()
            change = self._change(here, there)
            put_s = (self._offset(change) - self._offset(here)).total_seconds()
            after = self._clock_s(change)
            if after == mark_s or reached(after - put_s, put_s, after):
                return (change - begin).total_seconds()
            here = change

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta()

    def _change(self, early: datetime, late: datetime) -> datetime:
        """Return when the clock changes between the two, in whole seconds since 1970."""
        low, high, first = math.floor(early.timestamp()), math.ceil(late.timestamp()), self._offset(early)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(datetime.fromtimestamp(middle, UTC)) == first:
                low = middle
            else:
                high = middle
        return datetime.fromtimestamp(high, UTC)


def _window(begin: str, end: str) -> tuple[int, int]:
    key = "limits.run_between"
    begin_s, end_s = _seconds(begin, key) % DAY_S, _seconds(end, key) or DAY_S
    if begin_s == end_s % DAY_S and (end != "24:00" or begin == end):
        raise ConfigError(
            f'{key} = ["{begin}", "{end}"]: it begins and ends at the same time; leave it out to run at all hours'
        )
    return begin_s, end_s


def _seconds(text: str, key: str) -> int:
    """Return the seconds since midnight."""
    if not _TIME.fullmatch(text):
        raise ConfigError(f'{key}: got "{text}"; expected a time of day from 00:00 to 24:00, like 22:00 or 7:30')
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _clock_time(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}"
