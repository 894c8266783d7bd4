"""The limit that really holds: the config's, cut by what the server's headers and refusals teach. Arithmetic only.

The config is a cap that is never passed. A server that says less (`x-ratelimit-limit-*`) is believed at once. A server
that only refuses (429) is learned: when a window of two seconds holds more than a few refusals the rate falls to what
was accepted in it, then grows slowly, and more slowly still near the rate that was refused before. Single refusals
among many answers cut nothing: they are noise, and their Retry-After is obeyed anyway.
"""

from __future__ import annotations

#: Answers and refusals are judged in windows of this length.
WINDOW_S = 2.0
#: Fewer answers than this in a window measure nothing.
MEASURE_ANSWERS = 10
#: A smaller share of refusals in a window is noise.
NOISE_SHARE = 0.02
#: The share of the accepted rate that is aimed at after a cut, and the deepest cut at once.
CUT_TO, DEEPEST_CUT = 0.98, 0.5
#: Growth a second: far from the last refused rate, and near it; and when it begins after a cut.
GROW_FAR, GROW_NEAR, NEAR, SETTLE_S = 0.02, 0.003, 0.95, 3.0
#: A reset further away than this belongs to a limit a day.
MINUTE_RESET_S = 65.0


class Pace:
    """Units a minute that may be sent now; None while nothing limits."""

    def __init__(self, configured: float | None) -> None:
        self._configured = configured
        # All state that changes.
        self._told: float | None = None
        self._learned: float | None = None
        self._refused_rate = float("inf")
        self._cut_at = float("-inf")
        self._grown_at = 0.0
        self._window_at: float | None = None
        self._accepted = 0.0
        self._answers = 0
        self._refused = 0

    def per_minute(self, now: float) -> float | None:
        """The limit at `now` (seconds of the run's clock)."""
        self._grow(now)
        known = [limit for limit in (self._configured, self._told, self._learned) if limit is not None]
        return min(known) if known else None

    @property
    def configured(self) -> float | None:
        """What the config says; None without a limit."""
        return self._configured

    @property
    def learned(self) -> float | None:
        """What the server taught, by its headers or its refusals; None if nothing."""
        known = [limit for limit in (self._told, self._learned) if limit is not None]
        return min(known) if known else None

    def tell(self, limit: int | None, reset_s: float | None) -> None:
        """Take over what a header says. Limits a day are none of this meter's."""
        if limit is None or limit <= 0 or (reset_s is not None and reset_s > MINUTE_RESET_S):
            return
        self._told = float(limit)

    def accept(self, units: float, now: float) -> None:
        """An answer came: `units` passed the server's limit."""
        self._judge(now)
        self._accepted += units
        self._answers += 1

    def refuse(self, now: float) -> None:
        """A 429 came."""
        self._judge(now)
        self._refused += 1

    def _judge(self, now: float) -> None:
        """At the end of a window: cut if too much of it was refused, and begin the next."""
        if self._window_at is None:
            self._window_at = now
        passed_s = now - self._window_at
        if passed_s < WINDOW_S:
            return
        if self._answers >= MEASURE_ANSWERS and self._refused > NOISE_SHARE * (self._answers + self._refused):
            self._cut(self._accepted / passed_s * 60, now)
        self._window_at, self._accepted, self._answers, self._refused = now, 0.0, 0, 0

    def _cut(self, accepted_per_minute: float, now: float) -> None:
        current = self.per_minute(now)
        target = CUT_TO * accepted_per_minute
        if current is not None:
            target = min(max(target, DEEPEST_CUT * current), current)
            self._refused_rate = current
        self._learned = max(target, 1.0)
        self._cut_at = self._grown_at = now

    def _grow(self, now: float) -> None:
        passed_s, self._grown_at = now - self._grown_at, now
        if self._learned is None or now - self._cut_at < SETTLE_S:
            return
        near = self._learned > NEAR * self._refused_rate
        self._learned *= 1 + (GROW_NEAR if near else GROW_FAR) * min(max(passed_s, 0.0), 1.0)
