"""From a pilot to a plan: the rest's tokens, money and time, and which limit binds. Arithmetic only."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipeline.batches import LaneInputs, Route
from pipeline.facts import EarlyEnd, Interval, Plan, Tier
from pipeline.limits import Price
from pipeline.parts import hours_of, is_simulated, price_for
from pipeline.planner.lanes import auto_choice, lanes_of
from pipeline.planner.schedule import PacingLimits, simulate, until_used_up
from pipeline.records import Outcome, Usage
from pipeline.settings import Settings

#: A pilot's calls in flight. The first ones pay for their connections: they are left out of the latency.
PILOT_AT_ONCE = 5
#: A normal distribution's two-sided 95 %.
Z95 = 1.96

#: How a plan calls what the day's limit makes it take.
A_DAY = "requests a day"


@dataclass(frozen=True, slots=True)
class PilotFacts:
    """What a plan is made from: the input, the run folder, the server's word, the time.

    `spent` is what the run has cost so far: US dollars and tokens. `looked_at` outcomes were seen, of which `asked` are
    those of records that a model was asked about; `problems` are the codes of those without a label.
    `batches_took_s` is how long the run's batches took so far. `cache` says what is done for the server's prompt cache;
    `marks_constant`: the end of the constant part is marked for it. `has_batches`: the server has batches; it is asked
    where the lane is chosen by that. `gold` records of `quality.gold` are yet to be asked beside those of the input.
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
    batches_took_s: Sequence[float] = ()
    cache: str = ""
    marks_constant: bool = False
    has_batches: bool = False
    gold: int = 0
    now: datetime = field(default_factory=lambda: datetime.now().astimezone())


def planned(settings: Settings, seen: PilotFacts, price: Price | None) -> Plan:
    """The plan, from what was seen."""
    left = max(0, seen.records - seen.done)
    calls_per_record = statistics.fmean(outcome.attempts for outcome in seen.asked)
    asks = left + (gold := seen.gold if left else 0)
    tokens = interval([outcome.usage.total for outcome in seen.asked], asks)

    def cost_at(at: Price) -> Interval:
        # With a mark only the constant part is written, once: the rest reads what the pilot wrote.
        used = [_read_again(one.usage) if seen.marks_constant else one.usage for one in seen.asked]
        dearer = [_dearer(settings, outcome) for outcome in seen.asked]
        return interval([at.cost_usd(usage) * times for usage, times in zip(used, dearer, strict=True)], asks)

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
        cache=seen.cache,
        cached_share=_cached_share(seen.asked),
        gold=gold,
    )
    durations = _durations(settings, found, seen)
    found = replace(found, durations_s=durations)
    found = replace(found, concurrency=_concurrency(found))
    shares = _budget_shares(found, settings, seen.spent)
    found = _with_budget(found, shares)
    found = _with_times(found, settings, seen)
    found = replace(found, ends=_ends(found, settings, seen, shares))
    pace_s = max((seconds for name, seconds in durations.items() if name != A_DAY), default=0.0)
    inputs = LaneInputs(left, has_batches=seen.has_batches, live_s=pace_s, took_s=seen.batches_took_s)
    choice = auto_choice(settings, inputs, seen.now, used_today=seen.used_today)
    by_batch = choice is not None and choice.route is not Route.LIVE
    lanes = lanes_of(settings, left, found.seconds, cost_at, seen.batches_took_s, by_batch=by_batch)
    return replace(found, lanes=lanes, auto="" if choice is None else str(choice))


def _read_again(usage: Usage) -> Usage:
    return replace(usage, cached=usage.cached + usage.cache_write, cache_write=0)


def _cached_share(asked: Sequence[Outcome]) -> float:
    used = sum((outcome.usage for outcome in asked), Usage())
    return used.cached / used.prompt if used.prompt else 0.0


def _dearer(settings: Settings, outcome: Outcome) -> float:
    """How many times the price of the run's own model the pilot's record cost: of voters each has its own."""
    price = price_for(settings)
    own = 0.0 if price is None else price.cost_usd(outcome.usage)
    return outcome.cost_usd / own if settings.quality.voters and own and outcome.cost_usd is not None else 1.0


def interval(values: Sequence[float], count: int) -> Interval:
    """The sum over `count` more that are like these."""
    mean = statistics.fmean(values)
    spread = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Interval(max(0.0, mean - spread) * count, (mean + spread) * count)


def latency_of(asked: Sequence[Outcome]) -> float:
    """Seconds that an answer takes, without those that paid for a connection where there are enough others."""
    warm = asked[PILOT_AT_ONCE:] if len(asked) >= 3 * PILOT_AT_ONCE else asked
    return statistics.fmean(outcome.latency_s for outcome in warm)


def least(*limits: int | None) -> int | None:
    """The lowest limit; None where there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _durations(settings: Settings, found: Plan, seen: PilotFacts) -> dict[str, float]:
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
        day = PacingLimits(per_day=found.requests_per_day, used_today=seen.used_today)
        if (seconds := simulate(calls, seen.now, day).seconds) > 0:
            durations[A_DAY] = seconds
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


def _ends(
    found: Plan, settings: Settings, seen: PilotFacts, shares: Mapping[str, tuple[float, float]]
) -> list[EarlyEnd]:
    """What ends the run before all is done, the first one first."""
    terms = terms_of(settings, found, seen.used_today, found.per_s)
    known = bool(found.durations_s)
    ends: list[EarlyEnd] = []
    for key, (_, likely) in shares.items():
        if likely < 1:
            records = math.floor(found.left * likely)
            seconds = simulate(records * found.calls_per_record, seen.now, terms).seconds
            ends.append(EarlyEnd(key, records, seconds if known or seconds > 0 else None))
    until = None if terms.hours is None else terms.hours.ends_at(seen.now)
    if until is not None and found.late_by_s > 0:
        ends.append(EarlyEnd("limits.stop_at", found.done_by_stop or 0, (until - seen.now).total_seconds()))
    if settings.limits.on_day_limit == "stop" and settings.limits.requests_per_day is not None:
        simulation = until_used_up(found.calls, seen.now, terms)
        if simulation is not None:
            ends.append(EarlyEnd("limits.requests_per_day", _records(simulation.calls, found), simulation.seconds))
    return sorted(ends, key=lambda end: (end.records, end.seconds or 0.0))


def _records(calls: float, found: Plan) -> int:
    return min(found.left, math.floor(found.left * calls / found.calls + 1e-6)) if found.left else 0


def _shares(rest: float, wanted: Interval) -> tuple[float, float]:
    """The share of all records that the rest of a budget does for: surely, and as expected."""
    rest = max(0.0, rest)
    return (rest / wanted.high, rest / wanted.middle) if wanted.middle > 0 else (1.0, 1.0)


def terms_of(settings: Settings, found: Plan, seen_today: int, per_s: float) -> PacingLimits:
    """Under what the calls of a plan leave, at this pace."""
    return PacingLimits(per_s=per_s, per_day=found.requests_per_day, used_today=seen_today, hours=hours_of(settings))


def _with_times(found: Plan, settings: Settings, seen: PilotFacts) -> Plan:
    hours = hours_of(settings)
    terms = terms_of(settings, found, seen.used_today, found.per_s)
    seconds = simulate(found.calls, seen.now, terms).seconds
    always = simulate(found.calls, seen.now, replace(terms, hours=None)).seconds
    waits_s = seconds - always if math.isfinite(seconds) else 0.0
    known = bool(found.durations_s) or not found.left
    found = replace(found, seconds=seconds if known or seconds > 0 else None, waits_s=max(0.0, waits_s))
    until = None if hours is None else hours.ends_at(seen.now)
    if until is None:
        return found
    by_then = simulate(found.calls, seen.now, terms, until)
    late_by_s = max(0.0, seconds - (until - seen.now).total_seconds())
    by_stop = _records(by_then.calls, found)
    return replace(found, stop_at=settings.limits.stop_at, late_by_s=late_by_s, done_by_stop=by_stop)
