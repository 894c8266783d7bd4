"""What a person reads of a plan: what stands in the way comes first."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from pipeline.progress import dollars, duration
from pipeline.runner.lanes import Interval, Lane
from pipeline.runner.listening import Tier
from pipeline.runner.reckoning import Plan
from pipeline.runner.rehearsing import RehearsedPlan, Took

#: More than this is told as a need of days in the first line.
_LONG_S = 86_400.0


def plan_lines(found: Plan) -> list[str]:
    """The plan for a person."""
    return [
        *_warnings(found),
        f"{found.left:,} of {found.records:,} records are left; this is from {found.pilot:,} that were asked",
        f"  tokens       {found.tokens.low:,.0f} to {found.tokens.high:,.0f}",
        f"  cost         {_cost_line(found)}",
        *_time_lines(found),
        _concurrency_line(found),
        *_told_lines(found),
        *_lane_lines(found),
    ]


def _warnings(found: Plan) -> list[str]:
    lines = []
    by_day = found.binding == "requests a day" and found.requests_per_day
    if found.late_by_s:
        why = f"it takes {span(found.seconds)}"
        if by_day:
            why = f"{found.requests_per_day:,} requests a day (limits.requests_per_day) make it {span(found.seconds)}"
        lines.append(f"It cannot be done by {found.stop_at} (limits.stop_at): {why}. "
                     f"About {found.done_by_stop or 0:,} of {found.left:,} records are done by then; the rest stays "
                     "pending.")  # fmt: skip
    elif by_day and (found.seconds or 0) > _LONG_S:
        lines.append(f"It takes days: {found.requests_per_day:,} requests a day make it {span(found.seconds)}.")
    if found.budget_records is not None:
        lines.append(f"The budget does not do for all of it: it ends after about {found.budget_records:,} of "
                     f"{found.left:,} records, resumable.")  # fmt: skip
    elif found.budget_short:
        lines.append("The budget may not do for all of it: the run would stop there, resumable.")
    return lines


def _concurrency_line(found: Plan) -> str:
    taken = f"an answer takes {found.latency_s:.2f} s, {found.calls_per_record:.2f} calls a record"
    return f"  concurrency  {found.concurrency} is enough ({taken})"


def _cost_line(found: Plan) -> str:
    if found.cost is None:
        return "price unknown; set model.price"
    return money(found.cost) + (" (what the model would cost)" if found.simulated else "")


def money(cost: Interval) -> str:
    """`$1.20 to $1.30`."""
    low, high = dollars(cost.low), dollars(cost.high)
    return low if low == high else f"{low} to {high}"


def span(seconds: float | None) -> str:
    """A duration that may not be known, or may have no end worth naming."""
    if seconds is None:
        return "not known"
    return "more than 20 years" if math.isinf(seconds) else duration(seconds)


def _until(seconds: float | None) -> str:
    """`1 h 40 min, until about 2026-11-23 02:10`."""
    if seconds is None or math.isinf(seconds):
        return span(seconds)
    end = datetime.now().astimezone() + timedelta(seconds=seconds)
    return f"{span(seconds)}, until about {end:%Y-%m-%d %H:%M}"


def _time_lines(found: Plan) -> list[str]:
    if found.seconds is None:
        told = "no limit is known that would hold the calls up: it is as fast as the server lets it"
        return [f"  time         {told}", f"  what binds   {found.binding}"]
    waits = f", {duration(found.waits_s)} of it outside limits.run_between" if found.waits_s > 1 else ""
    lines = [f"  time         {_until(found.seconds)}{waits}", f"  what binds   {found.binding}"]
    return lines + [f"    by {name:<18} {span(seconds)}" for name, seconds in found.durations_s.items()]


def _told_lines(found: Plan) -> list[str]:
    return [] if found.told == Tier() else [f"  the server   says {_tier(found.told)}"]


def _lane_lines(found: Plan) -> list[str]:
    if not found.left:
        return []
    prices = ["price unknown" if lane.cost is None else money(lane.cost) for lane in found.lanes]
    width = max(map(len, prices), default=0)
    rows = zip(found.lanes, prices, strict=True)
    return ["  lanes", *(f"    {lane.name:<6} {price:<{width}}  {_lane_time(lane)}" for lane, price in rows)]


def _lane_time(lane: Lane) -> str:
    time = _until(lane.seconds) if lane.seconds is not None else lane.note or "time not known"
    more = f" ({lane.note})" if lane.note and lane.seconds is not None else ""
    return time + more + (" <- this config" if lane.chosen else "")


# -- a rehearsal -------------------------------------------------------------------------------------------------------


def rehearsal_lines(found: RehearsedPlan) -> list[str]:
    """What was planned beside what happened, for a person."""
    planned, happened = found.planned, found.happened
    rows = [
        ("records", f"{planned.records:,}", f"{happened.records:,}"),
        ("calls", f"{planned.calls:,.0f}", f"{happened.calls:,.0f}"),
        ("tokens", f"{planned.tokens:,.0f}", f"{happened.tokens:,.0f}"),
        ("time", span(planned.seconds), span(happened.seconds)),
        ("requests/min", _rate(planned), _rate(happened)),
        ("refused", f"{planned.refused:,}", f"{happened.refused:,}"),
        ("cost", dollars(planned.cost_usd), dollars(happened.cost_usd)),
        ("what binds", planned.binding, happened.binding),
    ]
    width = max(len(planned) for _, planned, _ in rows)
    used = ", ".join(f"{share:.0%} of {name}" for name, share in found.used.items())
    return [
        f"Rehearsed {happened.records:,} of {found.plan.records:,} after a pilot of {found.plan.done:,}, at no cost",
        f"  endpoint      {_tier(found.tier)}; an answer takes {found.latency_s:.2f} s (from {found.latency_from})",
        f"                {'planned':<{width}}  happened",
        *(f"  {name:<12}  {planned:<{width}}  {happened}" for name, planned, happened in rows),
        f"  in use        {used or 'nothing is limited'}",
        *([f"  stopped       {found.reason}"] if found.reason else []),
        _whole_line(found),
        *_warnings(found.plan),
        f"Tokens are the endpoint's (characters divided by four); its folder is {found.folder}.",
    ]


def _rate(took: Took) -> str:
    return "not known" if took.requests_per_minute is None else f"{took.requests_per_minute:,.0f}"


def _whole_line(found: RehearsedPlan) -> str:
    whole = found.whole
    counts = f"{whole.calls:,.0f} calls, {whole.tokens:,.0f} tokens, {_whole_cost(found)}"
    return f"All {whole.records:,} that are left, at what happened: {_until(whole.seconds)}; {counts}"


def _whole_cost(found: RehearsedPlan) -> str:
    cost = found.whole.cost_usd
    return "price unknown" if cost is None else f"{dollars(cost)} if the model were asked"


def _tier(tier: Tier) -> str:
    limits = [
        (tier.requests_per_minute, "requests a minute"),
        (tier.tokens_per_minute, "tokens a minute"),
        (tier.requests_per_day, "requests a day"),
    ]
    return ", ".join(f"{limit:,} {word}" for limit, word in limits if limit is not None) or "no limits"
