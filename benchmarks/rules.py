"""How the endpoint behaves in one lane: limits, an outage, faults, a quota. Arithmetic of `now` only."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

#: How latency grows with the load, in flight over the knee; 1.0 up to the knee.
KNEES: dict[str, Callable[[float], float]] = {
    "queue": lambda load: load,  # so many are served at once, the others wait: throughput stays
    "step": lambda load: 2.0 if load > 1 else 1.0,
    "doubling": lambda load: 2.0 ** (load - 1),  # doubled at twice the knee, and again: throughput falls
}
#: The eight ways in which a call can fail.
FAULTS = ("429", "503", "reset", "hang", "html", "bad_json", "bad_label", "no_tool")
#: Those that cost nothing. A hang does: nobody tells the model that the client has gone.
UNBILLED = ("429", "503", "reset", "html")


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests a minute that the server allows.

    `kind` is bucket (holds what `span_s` seconds give, `filled` of it at the start), window (a log of the last
    `span_s` seconds) or fixed (counts from zero every `span_s` seconds). `headers` sends `x-ratelimit-*`; `retry_after`
    is none, s (whole seconds, rounded up), ms, or a number of seconds that is sent whatever the wait is.
    """

    kind: str
    per_minute: float
    span_s: float = 60.0
    filled: float = 1.0
    headers: bool = False
    retry_after: str = "s"


@dataclass(frozen=True, slots=True)
class Rules:
    """One lane's behaviour. The outage begins with the call number `outage_after`; faults are a share of all calls."""

    latency_s: float = 0.05
    limit: Limit | None = None
    #: the lane whose count of requests is this one's too: another client of the same key
    shares: str | None = None
    #: beyond so many in flight latency grows, in one of the ways of `knee_kind`
    knee: int | None = None
    knee_kind: str = "queue"
    #: the share of calls that take `slow_factor` times as long
    slow: float = 0.0
    slow_factor: float = 20.0
    #: records that are never answered: the arguments of a range
    hangs: tuple[int, int, int] | None = None
    #: a call uses as many tokens as its size and chance give, not always the same
    usage_varies: bool = False
    outage_after: int | None = None
    outage_s: float = 30.0
    faults: float = 0.0
    quota_after: int | None = None
    seed: int = 1

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Rules:
        """What `dataclasses.asdict` made of rules."""
        limit = plain.pop("limit", None)
        return cls(**plain, limit=None if limit is None else Limit(**limit))


def latency_of(rules: Rules, record: int, nth: int, in_flight: int) -> float:
    """Seconds that a record's n-th call takes, beside so many in flight."""
    latency_s = (
        rules.latency_s * KNEES[rules.knee_kind](max(1.0, in_flight / rules.knee)) if rules.knee else (rules.latency_s)
    )
    if rules.slow and random.Random(f"slow/{rules.seed}/{record}/{nth}").random() < rules.slow:
        latency_s *= rules.slow_factor
    return latency_s


def usage_of(rules: Rules, record: int, nth: int, size_bytes: int, most: int) -> tuple[int, int]:
    """Prompt and completion tokens of a call of so many bytes that allows `most` for its answer."""
    if not rules.usage_varies:
        return 120, 9
    chance = random.Random(f"usage/{rules.seed}/{record}/{nth}")
    return round(size_bytes * chance.uniform(0.15, 0.4)), chance.randint(5, most)


class Meter(Protocol):
    """A server's count of requests. `spent_at` is when it was used up for the first time."""

    spent_at: float | None

    def take(self, now: float) -> float: ...
    def remaining(self, now: float) -> int: ...
    def reset_s(self, now: float) -> float: ...


@dataclass(slots=True)
class Bucket:
    """Gains `per_s` units a second, holds `capacity`."""

    per_s: float
    capacity: float
    level: float
    at: float
    spent_at: float | None = None

    def take(self, now: float) -> float:
        """0.0 and a unit is taken, or the seconds until there is one."""
        self._fill(now)
        if self.level >= 1.0:
            self.level -= 1.0
            return 0.0
        self.spent_at = self.spent_at or now
        return (1.0 - self.level) / self.per_s

    def remaining(self, now: float) -> int:
        """Whole units in it."""
        self._fill(now)
        return int(self.level)

    def reset_s(self, now: float) -> float:
        """Seconds until it is full, as OpenAI's header counts."""
        self._fill(now)
        return (self.capacity - self.level) / self.per_s

    def _fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self.at) * self.per_s)
        self.at = now


@dataclass(slots=True)
class Window:
    """At most `capacity` units in any `span_s` seconds."""

    capacity: int
    span_s: float
    spent_at: float | None = None
    log: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> float:
        """0.0 and a unit is taken, or the seconds until there is one."""
        self._forget(now)
        if len(self.log) < self.capacity:
            self.log.append(now)
            return 0.0
        self.spent_at = self.spent_at or now
        return self.log[0] + self.span_s - now

    def remaining(self, now: float) -> int:
        """Units left in the window that ends now."""
        self._forget(now)
        return self.capacity - len(self.log)

    def reset_s(self, now: float) -> float:
        """Seconds until the window is empty."""
        return self.log[-1] + self.span_s - now if self.log else 0.0

    def _forget(self, now: float) -> None:
        while self.log and self.log[0] <= now - self.span_s:
            self.log.popleft()


@dataclass(slots=True)
class Fixed:
    """At most `capacity` units from each multiple of `span_s` to the next."""

    capacity: int
    span_s: float
    spent_at: float | None = None
    window: int = -1
    used: int = 0

    def take(self, now: float) -> float:
        """0.0 and a unit is taken, or the seconds until there is one."""
        if self.remaining(now):
            self.used += 1
            return 0.0
        self.spent_at = self.spent_at or now
        return self.reset_s(now)

    def remaining(self, now: float) -> int:
        """Units left until the window ends."""
        if int(now / self.span_s) != self.window:
            self.window, self.used = int(now / self.span_s), 0
        return self.capacity - self.used

    def reset_s(self, now: float) -> float:
        """Seconds until the window ends."""
        return (int(now / self.span_s) + 1) * self.span_s - now


def meter_of(limit: Limit, now: float) -> Meter:
    """The server's count for a limit."""
    per_s = limit.per_minute / 60
    capacity = max(1.0, per_s * limit.span_s)
    if limit.kind == "fixed":
        return Fixed(round(capacity), limit.span_s)
    if limit.kind == "window":
        return Window(round(capacity), limit.span_s)
    return Bucket(per_s, capacity, capacity * limit.filled, now)


def limit_headers(limit: Limit, meter: Meter, now: float) -> str:
    """The `x-ratelimit-*` lines."""
    return (
        f"x-ratelimit-limit-requests: {limit.per_minute:g}\r\n"
        f"x-ratelimit-remaining-requests: {meter.remaining(now)}\r\n"
        f"x-ratelimit-reset-requests: {math.ceil(meter.reset_s(now) * 1000)}ms\r\n"
    )


def retry_after_s(limit: Limit, wait_s: float) -> float | None:
    """The wait that a refusal asks for, in the words of the limit; None where it says nothing."""
    if limit.retry_after == "none":
        return None
    if limit.retry_after == "s":
        return float(max(1, math.ceil(wait_s)))
    return math.ceil(wait_s * 1000) / 1000 if limit.retry_after == "ms" else float(limit.retry_after)


def retry_header(limit: Limit, wait_s: float) -> str:
    """The line that says how long to wait; empty where there is none."""
    told_s = retry_after_s(limit, wait_s)
    if told_s is None:
        return ""
    return f"retry-after-ms: {told_s * 1000:.0f}\r\n" if limit.retry_after == "ms" else f"retry-after: {told_s:g}\r\n"


def fault_of(rules: Rules, record: int, nth: int) -> str | None:
    """The fault of a record's n-th call, the same in every run; None for a sound answer."""
    if rules.hangs is not None and record in range(*rules.hangs):
        return "hang"
    if not rules.faults:
        return None
    chance = random.Random(f"{rules.seed}/{record}/{nth}").random()
    return FAULTS[int(chance / rules.faults * len(FAULTS))] if chance < rules.faults else None
