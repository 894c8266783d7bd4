"""From a pilot to a plan: the rest's tokens, money and time, and which limit binds. Arithmetic only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pipeline.limits import Price
from pipeline.records import Outcome
from pipeline.runner.lanes import Interval, Lane, lanes_of
from pipeline.runner.listening import Tier
from pipeline.runner.parts import hours_of, is_simulated
from pipeline.runner.schedule import Terms, until_used_up, walk
from pipeline.settings import Settings

#: A pilot's calls in flight. The first ones pay for their connections: they are left out of the latency.
PILOT_AT_ONCE = 5
#: A normal distribution's two-sided 95 %.
Z95 = 1.96
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class End:
    """What ends the run before all is done: the setting, after about how many records, after how many seconds.

    `seconds` is None where nothing is known that holds the calls up.
    """

    key: str
    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to do. `durations_s` are seconds by what would limit it if nothing else did.

    `looked_at` records have an outcome in the run folder and were looked at, and `problems` says why some of them have
    no label; `pilot` of them were asked. `cost` is None where the price is unknown, `seconds` where nothing is known
    that holds the calls up. `waits_s` is the part of it in which the hours are waited for. `ends` are what ends the run
    before all is done, the first one first. `late_by_s` is above 0 where `limits.stop_at` is too early for all;
    `done_by_stop` records could be done by then. `budget_records` is how many the budget does for, None where it does
    for all that is expected; `budget_short` is true where it may not do. `concurrency` is what serves the limits, None
    where none is known; `in_flight` is the config's. `told` are limits that the server told.
    """

    records: int
    done: int
    pilot: int
    calls_per_record: float
    latency_s: float
    tokens: Interval
    cost: Interval | None
    durations_s: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    waits_s: float = 0.0
    concurrency: int | None = None
    in_flight: int | None = None
    budget_short: bool = False
    budget_records: int | None = None
    stop_at: str | None = None
    late_by_s: float = 0.0
    done_by_stop: int | None = None
    requests_per_day: int | None = None
    told: Tier = field(default_factory=Tier)
    lanes: list[Lane] = field(default_factory=list)
    simulated: bool = False
    looked_at: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    failed_path: str = ""

    @property
    def without_label(self) -> int:
        """Records among those looked at that have an outcome and no label."""
        return sum(self.problems.values())

    @property
    def doable(self) -> int:
        """Records that a run would come to before something ends it."""
        return self.ends[0].records if self.ends else self.left

    @property
    def left(self) -> int:
        """Records without an outcome."""
        return max(0, self.records - self.done)

    @property
    def calls(self) -> float:
        """Calls that they take."""
        return self.left * self.calls_per_record

    @property
    def binding(self) -> str:
        """What the end depends on: the budget where that ends the run first, else what takes the longest."""
        if self.ends and self.ends[0].key.startswith("limits.budget"):
            return "budget"
        if not self.left:
            return "nothing"
        return max(self.durations_s, key=lambda name: self.durations_s[name], default="nothing")

    @property
    def per_s(self) -> float:
        """Calls a second that leave while they may; infinite where nothing is known to hold them up."""
        return pace_of(self.durations_s, self.calls)

    @property
    def limits_per_s(self) -> float:
        """Calls a second that the limits let through, concurrency aside; a day's only where there is no other."""
        own = {name: seconds for name, seconds in self.durations_s.items() if name != "concurrency"}
        pace = pace_of(own, self.calls)
        return self.requests_per_day / DAY_S if math.isinf(pace) and self.requests_per_day else pace

    @property
    def ends_at(self) -> datetime | None:
        """When it would be done, if it began now; None where that cannot be said."""
        if self.seconds is None or math.isinf(self.seconds):
            return None
        return datetime.now().astimezone() + timedelta(seconds=self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        ends_at = self.ends_at
        more = {
            "left": self.left,
            "doable": self.doable,
            "binding": self.binding,
            "ends_at": ends_at and ends_at.isoformat("T", "seconds"),
        }
        return {**asdict(self), **more}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a plan is made from: the input, the run folder, the server's word, the time.

    `spent` is what the run has cost so far: US dollars and tokens. `looked_at` outcomes were seen, of which `asked` are
    those of records that a model was asked about; `problems` are the codes of those without a label.
    """

    records: int
    done: int
    asked: Sequence[Outcome]
    used_today: int = 0
    spent: tuple[float, int] = (0.0, 0)
    told: Tier = field(default_factory=Tier)
    looked_at: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)
    failed_path: str = ""
    now: datetime = field(default_factory=lambda: datetime.now().astimezone())


def planned(settings: Settings, seen: Seen, price: Price | None) -> Plan:
    """The plan, from what was seen."""
    left = max(0, seen.records - seen.done)
    calls_per_record = statistics.fmean(outcome.attempts for outcome in seen.asked)
    tokens = interval([outcome.usage.total for outcome in seen.asked], left)

    def cost_at(price: Price) -> Interval:
        return interval([price.cost_usd(outcome.usage) for outcome in seen.asked], left)

    cost = None if price is None else cost_at(price)
    found = Plan(
        records=seen.records,
        done=seen.done,
        pilot=len(seen.asked),
        calls_per_record=calls_per_record,
        latency_s=latency_of(seen.asked),
        tokens=tokens,
        cost=cost,
        requests_per_day=least(settings.limits.requests_per_day, seen.told.requests_per_day),
        told=seen.told,
        simulated=is_simulated(settings),
        in_flight=None if settings.limits.concurrency == "auto" else settings.limits.concurrency,
        looked_at=seen.looked_at,
        problems=dict(seen.problems),
        failed_path=seen.failed_path,
    )
    durations = _durations(settings, found, seen)
    found = replace(found, durations_s=durations)
    found = replace(found, concurrency=_concurrency(found))
    shares = _budget_shares(found, settings, seen.spent)
    found = _with_budget(found, shares)
    found = _with_times(found, settings, seen)
    found = replace(found, ends=_ends(found, settings, seen, shares))
    return replace(found, lanes=lanes_of(settings, left, found.seconds, cost_at))


def codes_text(problems: Mapping[str, int]) -> str:
    """`invalid_label 17, timeout 2`, the most frequent first."""
    return ", ".join(f"{code} {count:,}" for code, count in sorted(problems.items(), key=lambda one: -one[1]))


def interval(values: Sequence[float], count: int) -> Interval:
    """The sum over `count` more that are like these."""
    mean = statistics.fmean(values)
    spread = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Interval(max(0.0, mean - spread) * count, (mean + spread) * count)


def latency_of(asked: Sequence[Outcome]) -> float:
    """Seconds that an answer takes, without those that paid for a connection where there are enough others."""
    warm = asked[PILOT_AT_ONCE:] if len(asked) >= 3 * PILOT_AT_ONCE else asked
    return statistics.fmean(outcome.latency_s for outcome in warm)


def pace_of(durations_s: Mapping[str, float], calls: float) -> float:
    """Calls a second that all limits but the day's let through; infinite where there is none."""
    longest = max((seconds for name, seconds in durations_s.items() if name != "requests a day"), default=0.0)
    return calls / longest if longest > 0 else math.inf


def least(*limits: int | None) -> int | None:
    """The lowest limit; None where there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _durations(settings: Settings, found: Plan, seen: Seen) -> dict[str, float]:
    limits, calls = settings.limits, found.calls
    durations: dict[str, float] = {}
    if limits.concurrency != "auto":
        durations["concurrency"] = calls * found.latency_s / limits.concurrency
    requests = least(limits.requests_per_minute, seen.told.requests_per_minute)
    if requests:
        durations["requests a minute"] = calls / requests * 60
    tokens = least(limits.tokens_per_minute, seen.told.tokens_per_minute)
    if tokens:
        durations["tokens a minute"] = found.tokens.middle / tokens * 60
    if found.requests_per_day:
        day = Terms(per_day=found.requests_per_day, used_today=seen.used_today)
        if (seconds := walk(calls, seen.now, day).seconds) > 0:
            durations["requests a day"] = seconds
    return durations


def _concurrency(found: Plan) -> int | None:
    """Calls in flight that serve, half as many again as the limits' pace needs on average; None without a limit."""
    pace = found.limits_per_s
    return None if math.isinf(pace) else max(1, math.ceil(pace * found.latency_s * 1.5))


def _budget_shares(found: Plan, settings: Settings, spent: tuple[float, int]) -> dict[str, tuple[float, float]]:
    """The share of all records that each budget does for, surely and as expected. What the run has spent counts."""
    limits = settings.limits
    shares: dict[str, tuple[float, float]] = {}
    if limits.budget_usd is not None and found.cost is not None:
        shares["limits.budget_usd"] = _shares(limits.budget_usd - spent[0], found.cost)
    if limits.budget_tokens is not None:
        shares["limits.budget_tokens"] = _shares(limits.budget_tokens - spent[1], found.tokens)
    return shares


def _with_budget(found: Plan, shares: Mapping[str, tuple[float, float]]) -> Plan:
    if not shares:
        return found
    surely, likely = (min(share) for share in zip(*shares.values(), strict=True))
    records = math.floor(found.left * likely) if likely < 1 else None
    return replace(found, budget_short=surely < 1, budget_records=records)


def _ends(found: Plan, settings: Settings, seen: Seen, shares: Mapping[str, tuple[float, float]]) -> list[End]:
    """What ends the run before all is done, the first one first."""
    terms = terms_of(settings, found, seen.used_today, found.per_s)
    known = bool(found.durations_s)
    ends: list[End] = []
    for key, (_, likely) in shares.items():
        if likely < 1:
            records = math.floor(found.left * likely)
            seconds = walk(records * found.calls_per_record, seen.now, terms).seconds
            ends.append(End(key, records, seconds if known or seconds > 0 else None))
    until = None if terms.hours is None else terms.hours.ends_at(seen.now)
    if until is not None and found.late_by_s > 0:
        ends.append(End("limits.stop_at", found.done_by_stop or 0, (until - seen.now).total_seconds()))
    if settings.limits.on_day_limit == "stop" and settings.limits.requests_per_day is not None:
        way = until_used_up(found.calls, seen.now, terms)
        if way is not None:
            ends.append(End("limits.requests_per_day", _records(way.calls, found), way.seconds))
    return sorted(ends, key=lambda end: (end.records, end.seconds or 0.0))


def _records(calls: float, found: Plan) -> int:
    return min(found.left, math.floor(calls / found.calls_per_record + 1e-6))


def _shares(rest: float, wanted: Interval) -> tuple[float, float]:
    """The share of all records that the rest of a budget does for: surely, and as expected."""
    rest = max(0.0, rest)
    return (rest / wanted.high, rest / wanted.middle) if wanted.middle > 0 else (1.0, 1.0)


def terms_of(settings: Settings, found: Plan, seen_today: int, per_s: float) -> Terms:
    """Under what the calls of a plan leave, at this pace."""
    return Terms(per_s=per_s, per_day=found.requests_per_day, used_today=seen_today, hours=hours_of(settings))


def _with_times(found: Plan, settings: Settings, seen: Seen) -> Plan:
    hours = hours_of(settings)
    terms = terms_of(settings, found, seen.used_today, found.per_s)
    seconds = walk(found.calls, seen.now, terms).seconds
    always = walk(found.calls, seen.now, replace(terms, hours=None)).seconds
    waits_s = seconds - always if math.isfinite(seconds) else 0.0
    known = bool(found.durations_s) or not found.left
    found = replace(found, seconds=seconds if known or seconds > 0 else None, waits_s=max(0.0, waits_s))
    until = None if hours is None else hours.ends_at(seen.now)
    if until is None:
        return found
    by_then = walk(found.calls, seen.now, terms, until)
    late_by_s = max(0.0, seconds - (until - seen.now).total_seconds())
    by_stop = _records(by_then.calls, found)
    return replace(found, stop_at=settings.limits.stop_at, late_by_s=late_by_s, done_by_stop=by_stop)
