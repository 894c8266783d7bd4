"""How long nothing leaves after what a server says: as long as it asks, within bounds; without a word, ever longer."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.limits.resource import Hold, Verdict
from pipeline.units import MINUTE_RESET_S

#: A 429 that says nothing about waiting: doubled with each one in a row. Waiting longer would miss the end by more.
BLIND_WAIT_S = 0.2
BLIND_WAIT_MAX_S = 4.0
#: A server's wait is heard for so long at a time; then one call asks again. So a wait of hours costs four refused calls
#: an hour, and one by mistake (of days, of thousands of years) no more than this.
HEARD_S = 15 * 60.0
#: After an answer that says "none left": its reset is when all of the limit is there again, and the next call may go
#: long before that. Beside another client on the same key whoever waits for the reset gets nothing.
REFILL_S = 0.1
#: Who asks for so long, or longer, has a limit a day: it is told with its moment, and being refused until then is no
#: outage. What lies further away than a day and an hour is no day's limit, and for longer than that nobody is excused.
DAY_ASKED_S, DAY_MOST_S = 3600.0, 25 * 3600.0
#: The same moment, told once more: servers round, and answers take their time.
SAME_MOMENT_S = 120.0


class Backoff:
    """Says until when everyone waits. `now` is the run's clock in seconds."""

    def __init__(self) -> None:
        # All state that changes: until when the server asked to wait, heard or not; since when it refuses, answering
        # nothing (None: it answers); since and until when it asks for hours, and the day's limit behind that with its
        # moment; and what the blind waits are made of.
        self.asked_until = self._asked_at = float("-inf")
        self.refused_since: float | None = None
        self._hours_since: float | None = None
        self._hours_until = float("-inf")
        self.day_until = float("-inf")
        self.day_limit = self.day_moment = ""
        self._in_a_row = 0
        self._refused_at = float("-inf")
        self._answers = self._refusals = 0

    def answered(self, sent_at: float) -> None:
        """An answer came. One to a call that was sent after the server asked to wait says that the wait is over."""
        self.refused_since = None
        self._in_a_row = 0
        self._answers += 1
        if sent_at > self._asked_at:
            self.asked_until = self.day_until = float("-inf")
            self._hours_since, self._hours_until = None, float("-inf")

    def used_up(self, what: str, reset_s: float, now: float, limit: str = "") -> Hold:
        """An answer says that no `what` is left; to the end where it is a limit a day (`limit`: 200 requests)."""
        wait_s = reset_s if reset_s > MINUTE_RESET_S else min(reset_s, REFILL_S)
        return self._hold(wait_s, f"the server says that no {what} left for now", now, limit)

    def excused(self, now: float) -> bool:
        """Whether being refused now is only what the server announced: its moment, hours away, has not come yet."""
        if self._hours_since is None:
            return False
        return now < min(self._hours_until, self._hours_since + DAY_MOST_S)

    @property
    def day_text(self) -> str:
        """The day's limit of the server that holds the run, in words."""
        return f"the server's day limit{self.day_limit and f' of {self.day_limit}'}"

    def wait_s(self, told_s: float | None) -> float:
        """Seconds that a refusal asks for, as far as they are heard; where it says nothing, those of a blind one."""
        blind_s = min(BLIND_WAIT_S * 2.0 ** min(self._in_a_row, 10), BLIND_WAIT_MAX_S)
        return min(told_s or blind_s, HEARD_S)

    def refused(self, told_s: float | None, sent_at: float, now: float, limit: str = "") -> Verdict:
        """A 429 came. Of calls that were sent before the last one came only what they ask for is heard.

        `limit` is the limit that is used up, as far as its headers say: 200 requests.
        """
        if self.refused_since is None:
            self.refused_since = now
        self._refusals += 1
        hold = self._hold(told_s, "429: the server's rate limit", now, limit) if told_s else None
        if sent_at <= self._refused_at:
            return Verdict(hold=hold)
        if hold is None:
            hold = self._hold(self.wait_s(None), "429: the server's rate limit (it does not say for how long)", now)
        shrink = self._refusals > self._answers
        self._refused_at = now
        self._in_a_row += 1
        self._answers = self._refusals = 0
        return Verdict(hold=hold, shrink=shrink)

    def _hold(self, wait_s: float, reason: str, now: float, limit: str = "") -> Hold:
        until = now + wait_s
        self.asked_until, self._asked_at = max(self.asked_until, until), now
        if wait_s >= DAY_ASKED_S:
            self._hours_since = now if self._hours_since is None else self._hours_since
            self._hours_until = until
        if DAY_ASKED_S <= wait_s <= DAY_MOST_S or abs(until - self.day_until) < SAME_MOMENT_S:
            self._name_day(until, wait_s, limit)
            reason = f"{self.day_text}; waits until {self.day_moment}, one call asks again each 15 min"
        elif wait_s > HEARD_S:
            reason = f"{reason} (it asks for longer; one call asks again then)"
        return Hold(now + min(wait_s, HEARD_S), reason, then_one=wait_s > HEARD_S)

    def _name_day(self, until: float, wait_s: float, limit: str) -> None:
        """The moment as the clock on the wall shows it; the same one is named in the same words."""
        self.day_limit = limit or self.day_limit
        if abs(until - self.day_until) < SAME_MOMENT_S:
            return
        here = datetime.now().astimezone()
        moment = (here + timedelta(seconds=wait_s)).astimezone()
        self.day_until = until
        self.day_moment = f"{moment:%H:%M}" if wait_s < 24 * 3600 else f"{moment:%Y-%m-%d %H:%M}"
