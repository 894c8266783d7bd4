"""Computes a plan from a pilot: tokens, money, and time of the rest, and the limit that binds. Pure arithmetic."""

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

#: Calls of a pilot in flight. The first ones include the time to connect, so the latency leaves them out.
PILOT_AT_ONCE = 5
#: The two-sided 95 % quantile of a normal distribution.
Z95 = 1.96

#: The name of the daily limit in a plan's durations.
A_DAY = "requests a day"


@dataclass(frozen=True, slots=True)
class PilotFacts:
    """The facts behind a plan: the input, the run folder, the server's limits, and the time.

    `spent` is the cost of the run so far, in US dollars and in tokens. `looked_at` records were seen. `outcomes` are
    those of the records that a model was asked about; `problems` counts the codes of those without a label.
    `batches_took_s` is how long each batch of the run took so far. `cache` describes the use of the server's prompt
    cache, and `marks_constant` is whether requests mark the end of the constant part for it. `has_batches` is whether
    the server has batches; it is asked only if the lane depends on it. `gold` is how many records of `quality.gold` are
    still to be asked.
    """

    records: int
    done: int
    outcomes: Sequence[Outcome]
    used_today: int = 0
    spent: tuple[float, int] = (0.0, 0)
    tier: Tier = field(default_factory=Tier)
    looked_at: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)
    failed_path: str = ""
    batches_took_s: Sequence[float] = ()
    cache: str = ""
    marks_constant: bool = False
    has_batches: bool = False
    gold: int = 0
    now: datetime = field(default_factory=lambda: datetime.now().astimezone())


def make_plan(settings: Settings, facts: PilotFacts, price: Price | None) -> Plan:
    """Return the plan that follows from the facts."""
    left = max(0, facts.records - facts.done)
    calls_per_record = statistics.fmean(outcome.attempts for outcome in facts.outcomes)
    asks = left + (gold := facts.gold if left else 0)
    tokens = interval([outcome.usage.total for outcome in facts.outcomes], asks)

    def cost_at(at: Price) -> Interval:
        # With a mark, only the constant part is written, and only once: the rest reads what the pilot wrote.
        used = [_as_cached(one.usage) if facts.marks_constant else one.usage for one in facts.outcomes]
        dearer = [_price_factor(settings, outcome) for outcome in facts.outcomes]
        return interval([at.cost_usd(usage) * times for usage, times in zip(used, dearer, strict=True)], asks)

    cost = None if price is None else cost_at(price)
    plan = Plan(
        records=facts.records,
        done=facts.done,
        pilot=len(facts.outcomes),
        calls_per_record=calls_per_record,
        latency_s=latency_of(facts.outcomes),
        tokens=tokens,
        cost=cost,
        requests_per_day=least(settings.limits.requests_per_day, facts.tier.requests_per_day),
        told=facts.tier,
        simulated=is_simulated(settings),
        in_flight=None if settings.limits.concurrency == "auto" else settings.limits.concurrency,
        looked_at=facts.looked_at,
        problems=dict(facts.problems),
        failed_path=facts.failed_path,
        cache=facts.cache,
        cached_share=_cached_share(facts.outcomes),
        gold=gold,
    )
    durations = _durations(settings, plan, facts)
    plan = replace(plan, durations_s=durations)
    plan = replace(plan, concurrency=_concurrency(plan))
    shares = _budget_shares(plan, settings, facts.spent)
    plan = _with_budget(plan, shares)
    plan = _with_times(plan, settings, facts)
    plan = replace(plan, ends=_ends(plan, settings, facts, shares))
    pace_s = max((seconds for name, seconds in durations.items() if name != A_DAY), default=0.0)
    inputs = LaneInputs(left, has_batches=facts.has_batches, live_s=pace_s, took_s=facts.batches_took_s)
    choice = auto_choice(settings, inputs, facts.now, used_today=facts.used_today)
    by_batch = choice is not None and choice.route is not Route.LIVE
    lanes = lanes_of(settings, left, plan.seconds, cost_at, facts.batches_took_s, by_batch=by_batch)
    return replace(plan, lanes=lanes, auto="" if choice is None else str(choice))


def _as_cached(usage: Usage) -> Usage:
    return replace(usage, cached=usage.cached + usage.cache_write, cache_write=0)


def _cached_share(outcomes: Sequence[Outcome]) -> float:
    used = sum((outcome.usage for outcome in outcomes), Usage())
    return used.cached / used.prompt if used.prompt else 0.0


def _price_factor(settings: Settings, outcome: Outcome) -> float:
    """Return the record's cost as a multiple of the price of the run's own model, because each voter has its own."""
    price = price_for(settings)
    own = 0.0 if price is None else price.cost_usd(outcome.usage)
    return outcome.cost_usd / own if settings.quality.voters and own and outcome.cost_usd is not None else 1.0


def interval(values: Sequence[float], count: int) -> Interval:
    """Return the sum over `count` more values like these."""
    mean = statistics.fmean(values)
    spread = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Interval(max(0.0, mean - spread) * count, (mean + spread) * count)


def latency_of(outcomes: Sequence[Outcome]) -> float:
    """Return the seconds per answer, without those that include connecting if there are enough others."""
    warm = outcomes[PILOT_AT_ONCE:] if len(outcomes) >= 3 * PILOT_AT_ONCE else outcomes
    return statistics.fmean(outcome.latency_s for outcome in warm)


def least(*limits: int | None) -> int | None:
    """Return the lowest limit; None if there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _durations(settings: Settings, plan: Plan, facts: PilotFacts) -> dict[str, float]:
    limits, calls = settings.limits, plan.calls
    durations: dict[str, float] = {}
    if limits.concurrency != "auto":
        durations["concurrency"] = calls * plan.latency_s / limits.concurrency
    requests = least(limits.requests_per_minute, facts.tier.requests_per_minute)
    if requests:
        durations["requests a minute"] = calls / requests * 60
    tokens = least(limits.tokens_per_minute, facts.tier.tokens_per_minute)
    if tokens:
        durations["tokens a minute"] = plan.tokens.middle / tokens * 60
    if plan.requests_per_day:
        day = PacingLimits(per_day=plan.requests_per_day, used_today=facts.used_today)
        if (seconds := simulate(calls, facts.now, day).seconds) > 0:
            durations[A_DAY] = seconds
    return durations


def _concurrency(plan: Plan) -> int | None:
    """Return how many calls in flight are enough: 1.5 times the average at the limits' pace; None without a limit."""
    pace = plan.limits_per_s
    return None if math.isinf(pace) else max(1, math.ceil(pace * plan.latency_s * 1.5))


def _budget_shares(plan: Plan, settings: Settings, spent: tuple[float, int]) -> dict[str, tuple[float, float]]:
    """Return the share of all records that each budget covers, surely and likely, less what the run has spent."""
    limits = settings.limits
    shares: dict[str, tuple[float, float]] = {}
    if limits.budget_usd is not None and plan.cost is not None:
        shares["limits.budget_usd"] = _shares(limits.budget_usd - spent[0], plan.cost)
    if limits.budget_tokens is not None:
        shares["limits.budget_tokens"] = _shares(limits.budget_tokens - spent[1], plan.tokens)
    return shares


def _with_budget(plan: Plan, shares: Mapping[str, tuple[float, float]]) -> Plan:
    if not shares:
        return plan
    surely, likely = (min(share) for share in zip(*shares.values(), strict=True))
    records = math.floor(plan.left * likely) if likely < 1 else None
    return replace(plan, budget_short=surely < 1, budget_records=records)


def _ends(
    plan: Plan, settings: Settings, facts: PilotFacts, shares: Mapping[str, tuple[float, float]]
) -> list[EarlyEnd]:
    """Return what ends the run before all records are done, the earliest first."""
    pacing = _pacing(settings, plan, facts)
    known = bool(plan.durations_s)
    ends: list[EarlyEnd] = []
    for key, (_, likely) in shares.items():
        if likely < 1:
            records = math.floor(plan.left * likely)
            seconds = simulate(records * plan.calls_per_record, facts.now, pacing).seconds
            ends.append(EarlyEnd(key, records, seconds if known or seconds > 0 else None))
    until = None if pacing.hours is None else pacing.hours.ends_at(facts.now)
    if until is not None and plan.late_by_s > 0:
        ends.append(EarlyEnd("limits.stop_at", plan.done_by_stop or 0, (until - facts.now).total_seconds()))
    if settings.limits.on_day_limit == "stop" and settings.limits.requests_per_day is not None:
        simulation = until_used_up(plan.calls, facts.now, pacing)
        if simulation is not None:
            ends.append(EarlyEnd("limits.requests_per_day", _records(simulation.calls, plan), simulation.seconds))
    return sorted(ends, key=lambda end: (end.records, end.seconds or 0.0))


def _records(calls: float, plan: Plan) -> int:
    return min(plan.left, math.floor(plan.left * calls / plan.calls + 1e-6)) if plan.left else 0


def _shares(rest: float, needed: Interval) -> tuple[float, float]:
    """Return the share of all records that the rest of a budget covers, surely and likely."""
    rest = max(0.0, rest)
    return (rest / needed.high, rest / needed.middle) if needed.middle > 0 else (1.0, 1.0)


def _pacing(settings: Settings, plan: Plan, facts: PilotFacts) -> PacingLimits:
    """Return the limits that pace the calls of a plan."""
    return PacingLimits(plan.per_s, plan.requests_per_day, facts.used_today, hours_of(settings))


def _with_times(plan: Plan, settings: Settings, facts: PilotFacts) -> Plan:
    hours = hours_of(settings)
    pacing = _pacing(settings, plan, facts)
    seconds = simulate(plan.calls, facts.now, pacing).seconds
    always = simulate(plan.calls, facts.now, replace(pacing, hours=None)).seconds
    waits_s = seconds - always if math.isfinite(seconds) else 0.0
    known = bool(plan.durations_s) or not plan.left
    plan = replace(plan, seconds=seconds if known or seconds > 0 else None, waits_s=max(0.0, waits_s))
    until = None if hours is None else hours.ends_at(facts.now)
    if until is None:
        return plan
    by_then = simulate(plan.calls, facts.now, pacing, until)
    late_by_s = max(0.0, seconds - (until - facts.now).total_seconds())
    by_stop = _records(by_then.calls, plan)
    return replace(plan, stop_at=settings.limits.stop_at, late_by_s=late_by_s, done_by_stop=by_stop)
