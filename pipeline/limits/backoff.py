"""Decides how long nothing leaves after a refusal: as the server asks, within bounds; if it does not, ever longer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline.limits.resource import Hold, Verdict
from pipeline.units import MINUTE_RESET_S

#: The wait after a 429 that names none, doubled with each one in a row. Longer waits would miss the end by more. It is
#: also the longest wait after an answer that says "none left": its reset is when the whole limit is back, and the next
#: call may go long before that. With other clients on the key, whoever waits for the reset gets nothing.
BLIND_WAIT_S = 0.2
BLIND_WAIT_MAX_S = 4.0
#: The longest wait that is obeyed at a time; then one call asks again. So a wait of hours costs four refused calls an
#: hour, and a mistaken one (of days, of thousands of years) no more than this.
HEARD_S = 15 * 60.0
#: A server that asks for at least this long has a daily limit: it is shown with its time, and refusals until then are
#: no outage. What is more than a day and an hour away is no daily limit, and no refusal is excused for longer.
DAY_ASKED_S, DAY_MOST_S = 3600.0, 25 * 3600.0
#: Times this close are the same one: servers round, and answers take time.
SAME_MOMENT_S = 120.0


@dataclass(frozen=True, slots=True)
class _RequestedWait:
    """When the server asked to wait, and until when; since and until when it asks for hours (None: it does not)."""

    at: float = float("-inf")
    until: float = float("-inf")
    hours_since: float | None = None
    hours_until: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Day:
    """A daily limit of the server: until when it is used up, that time in words, and the limit (200 requests)."""

    until: float = float("-inf")
    moment: str = ""
    limit: str = ""

    @property
    def text(self) -> str:
        """What holds the run, in words."""
        return f"the server's day limit{self.limit and f' of {self.limit}'}"


class Backoff:
    """Decides until when all calls wait: worth 62 used, 67 refused. `now` is the run's clock in seconds.

    Shrinking the window is worth 3 used, 8 refused.
    """

    def __init__(self) -> None:
        # Mutable state: what the server asked for, obeyed or not, and the daily limit behind that; since when it has
        # refused and not answered (None: it answers); and refusals minus answers since the last wait was set.
        self._requested_wait = _RequestedWait()
        self.day = Day()
        self.refused_since: float | None = None
        self._balance = 0

    @property
    def asked_until(self) -> float:
        """Until when the server asked to wait, obeyed or not."""
        return self._requested_wait.until

    def on_answer(self, sent_at: float) -> None:
        """Note an answer. If its call was sent after the server asked to wait, the wait is over."""
        self.refused_since = None
        self._balance -= 1
        if self._requested_wait.at < sent_at and self._requested_wait.until > float("-inf"):
            self._requested_wait = _RequestedWait(self._requested_wait.at)
            self.day = replace(self.day, until=float("-inf"))

    def on_none_left(self, what: str, reset_s: float, now: float, limit: str = "") -> Hold:
        """Return the wait after an answer that says that no `what` is left; for a daily limit, until its end.

        `limit` is that limit (200 requests). Worth 3 refused.
        """
        wait_s = reset_s if reset_s > MINUTE_RESET_S else min(reset_s, BLIND_WAIT_S)
        return self._hold(wait_s, f"the server says that no {what} left for now", now, limit)

    def is_excused(self, now: float) -> bool:
        """Whether a refusal now is only what the server announced: its time, hours away, has not come yet."""
        since = self._requested_wait.hours_since
        return since is not None and now < min(self._requested_wait.hours_until, since + DAY_MOST_S)

    def wait_s(self, asked_s: float | None) -> float:
        """Return the seconds to wait after a refusal, within bounds. If it names none: twice the wait before."""
        before_s = 0.0 if self.refused_since is None else self._requested_wait.until - self._requested_wait.at
        return min(asked_s or min(max(BLIND_WAIT_S, 2 * before_s), BLIND_WAIT_MAX_S), HEARD_S)

    def on_refusal(self, asked_s: float | None, sent_at: float, now: float, limit: str = "") -> Verdict:
        """Note a 429. If its call was sent before the last one came, only the wait that it asks for counts.

        `limit` is the limit that is used up, if its headers name it: 200 requests.
        """
        asked_at, blind_s = self._requested_wait.at, self.wait_s(None)
        if self.refused_since is None:
            self.refused_since = now
        self._balance += 1
        hold = self._hold(asked_s, "429: the server's rate limit", now, limit) if asked_s else None
        if sent_at <= asked_at:
            return Verdict(hold=hold)
        if hold is None:
            hold = self._hold(blind_s, "429: the server's rate limit (it does not say for how long)", now)
        balance, self._balance = self._balance, 0
        return Verdict(hold=hold, shrink=balance > 0)

    def _hold(self, wait_s: float, reason: str, now: float, limit: str = "") -> Hold:
        until, requested = now + wait_s, self._requested_wait
        self._requested_wait = replace(requested, at=now, until=max(requested.until, until))
        if wait_s >= DAY_ASKED_S:
            since = now if requested.hours_since is None else requested.hours_since
            self._requested_wait = replace(self._requested_wait, hours_since=since, hours_until=until)
        is_same = abs(until - self.day.until) < SAME_MOMENT_S
        if is_same:
            self.day = replace(self.day, limit=limit or self.day.limit)
        elif DAY_ASKED_S <= wait_s <= DAY_MOST_S:
            self.day = Day(until, _moment(wait_s), limit or self.day.limit)
        if is_same or DAY_ASKED_S <= wait_s <= DAY_MOST_S:
            reason = f"{self.day.text}; waits until {self.day.moment}, one call asks again each 15 min"
        elif wait_s > HEARD_S:
            reason = f"{reason} (it asks for longer; one call asks again then)"
        return Hold(now + min(wait_s, HEARD_S), reason, then_one=wait_s > HEARD_S)


def _moment(wait_s: float) -> str:
    """Return the wall-clock time after a wait."""
    moment = (datetime.now().astimezone() + timedelta(seconds=wait_s)).astimezone()
    return f"{moment:%H:%M}" if wait_s < 24 * 3600 else f"{moment:%Y-%m-%d %H:%M}"
