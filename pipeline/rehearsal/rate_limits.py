"""Limits requests and tokens per minute and per day as a server does: pure functions of the clock, without waiting."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.replies import SLACK, whole_ms
from pipeline.units import DAY_S


class TokenBucket:
    """Holds up to `capacity` units and gains `per_s` each second. It starts full.

    An amount above the capacity passes when the bucket is full, and leaves it in debt.
    """

    __slots__ = ("_at", "_level", "capacity", "per_s")

    def __init__(self, per_s: float, capacity: float, now: float) -> None:
        self.per_s = per_s
        self.capacity = capacity
        self._level = capacity
        self._at = now

    def level(self, now: float) -> float:
        """Return the current level; below zero in debt."""
        return min(self.capacity, self._level + (now - self._at) * self.per_s)

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until `amount` may be taken; 0.0 if it may be taken now."""
        missing = min(amount, self.capacity) - self.level(now)
        return missing / self.per_s if missing > SLACK else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, even if it leaves a debt."""
        self._level = self.level(now) - amount
        self._at = now

    def full_in_s(self, now: float) -> float:
        """Return the seconds until it is full."""
        return max(0.0, (self.capacity - self.level(now)) / self.per_s)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The limit that a call exceeds. `wait_s` is None if waiting would not help."""

    meter: str
    limit: int
    used: int
    requested: int
    wait_s: float | None

    @property
    def type(self) -> str:
        """OpenAI's type of the error."""
        return "tokens" if self.meter.startswith("tokens") else "requests"

    def message(self, model: str) -> str:
        """Return the message for the client."""
        if self.wait_s is None:
            return (
                f"Request too large for {model} in the rehearsal on {self.meter}: Limit {self.limit}, "
                f"Requested {self.requested}. The input or output tokens must be reduced."
            )
        return (
            f"Rate limit reached for {model} in the rehearsal on {self.meter}: Limit {self.limit}, Used {self.used}, "
            f"Requested {self.requested}. Please try again in {duration_text(self.wait_s)}."
        )


@dataclass(frozen=True, slots=True)
class _RateLimit:
    name: str
    limit: float
    bucket: TokenBucket
    counts_tokens: bool = False

    def shortfall(self, amount: int, now: float) -> Shortfall | None:
        hopeless = amount > self.limit
        wait_s = self.bucket.wait_s(amount, now)
        if not hopeless and not wait_s:
            return None
        # A bucket of a few seconds holds less than the known limit, so "used" is scaled to that limit.
        used = min(self.limit, self.limit * (1 - self.bucket.level(now) / self.bucket.capacity))
        return Shortfall(self.name, int(self.limit), int(used), amount, None if hopeless else wait_s)


class RateLimiter:
    """Admits calls. A refused call takes nothing from any bucket; an admitted call takes from all of them."""

    def __init__(self, options: RehearsalOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        now = clock()

        def meter(name: str, limit: float | None, span_s: float, hold_s: float) -> _RateLimit | None:
            if limit is None:
                return None
            per_s = limit / span_s
            return _RateLimit(name, limit, TokenBucket(per_s, max(1.0, per_s * hold_s), now), name.startswith("tokens"))

        self._requests = meter("requests per min (RPM)", options.requests_per_minute, 60.0, options.burst_s)
        self._tokens = meter("tokens per min (TPM)", options.tokens_per_minute, 60.0, options.burst_s)
        self._day = meter("requests per day (RPD)", options.requests_per_day, DAY_S, DAY_S)
        self._meters = [one for one in (self._requests, self._tokens, self._day) if one]

    def admit(self, tokens: int) -> Shortfall | None:
        """Count the call and return None, or return the limit that takes the longest to recover."""
        now = self._clock()
        worst: Shortfall | None = None
        for meter in self._meters:
            short = meter.shortfall(tokens if meter.counts_tokens else 1, now)
            if short and (worst is None or _longer(short, worst)):
                worst = short
        if worst is None:
            for meter in self._meters:
                meter.bucket.take(tokens if meter.counts_tokens else 1, now)
        return worst

    def headers(self) -> dict[str, str]:
        """Return the current `x-ratelimit-*` headers. The requests are the day's if only the day is limited."""
        now = self._clock()
        headers: dict[str, str] = {}
        for word, meter in (("requests", self._requests or self._day), ("tokens", self._tokens)):
            if meter:
                headers[f"x-ratelimit-limit-{word}"] = str(int(meter.limit))
                headers[f"x-ratelimit-remaining-{word}"] = str(max(0, int(meter.bucket.level(now) + SLACK)))
                headers[f"x-ratelimit-reset-{word}"] = duration_text(meter.bucket.full_in_s(now))
        return headers


def _longer(one: Shortfall, other: Shortfall) -> bool:
    if one.wait_s is None or other.wait_s is None:
        return one.wait_s is None
    return one.wait_s > other.wait_s


def duration_text(seconds: float) -> str:
    """Format a duration as OpenAI's headers do: `12ms`, `1.2s`, `6m0s`, `1h0m0s`. Rounds up to milliseconds."""
    ms = whole_ms(seconds)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest_ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
