"""Formats plans and rehearsals. Obstacles come first."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from pipeline.facts import MACHINE, UNKNOWN, EarlyEnd, Interval, LaneEstimate, Plan, RehearsedPlan, Tier, Workload
from pipeline.units import DAY_S, UNPRICED, dollars, duration

#: If a run takes longer, the first line reports that it takes days.
_LONG_S = DAY_S
#: A larger share of records without a label is reported first.
MISSING_SHARE = 0.1


def plan_lines(plan: Plan) -> list[str]:
    """Format the plan."""
    if not plan.left:
        return [*_label_lines(plan), f"Nothing is left to label: all {plan.records:,} records have an outcome"]
    return [
        *_warnings(plan),
        f"{plan.left:,} of {plan.records:,} records are left; the estimate is from {plan.pilot:,} that were labeled",
        *([f"  gold         {plan.gold:,} gold records are asked too; all figures include them"] if plan.gold else []),
        f"  tokens       {plan.tokens.low:,.0f} to {plan.tokens.high:,.0f}",
        f"  cost         {_cost_line(plan)}",
        *_time_lines(plan),
        f"  concurrency  {_concurrency_text(plan)}",
        f"  an answer    takes {plan.latency_s:.2f} s; {plan.calls_per_record:.2f} calls per record",
        *_cache_lines(plan),
        *([] if plan.told == Tier() else [f"  the server   says {_tier(plan.told)}"]),
        *_lane_lines(plan),
        *([f"  {plan.auto}"] if plan.auto else []),
    ]


def _warnings(plan: Plan) -> list[str]:
    lines = _label_lines(plan)
    if plan.ends:
        lines.append(_ends_line(plan))
    elif _by_day(plan) and (plan.seconds or 0) > _LONG_S:
        lines.append(f"It takes days: {_day_text(plan)}.")
    if plan.budget_short and plan.budget_records is None:
        lines.append("The budget may not be enough for all records. The run would stop there, and you can resume it.")
    return lines


def _label_lines(plan: Plan) -> list[str]:
    """Report that too few of the asked records have a label, which makes a plan for the rest nearly worthless."""
    missing, of = plan.without_label, plan.looked_at
    if missing <= MISSING_SHARE * of:
        return []
    many = f"None of the {of:,} records so far got a label"
    if missing < of:
        many = f"{missing:,} of the {of:,} records so far got no label"
    todo = f"Fix that first: {plan.failed_path} has the reason for each, and labelpipe preview tries again"
    return [f"{many}: {codes_text(plan.problems)}. {todo}."]


# -- what ends the run before all is done ------------------------------------------------------------------------------


def _ends_line(plan: Plan) -> str:
    first, *later = plan.ends
    more = [_later_text(plan, end) for end in later]
    return _first_text(plan, first) + (f" Without that: {'; '.join(more)}." if more else "")


def _first_text(plan: Plan, end: EarlyEnd) -> str:
    done = f"{end.records:,} of {plan.left:,} records"
    if end.key == "limits.stop_at":
        why = _why_late(plan)
        return (
            f"It cannot be done by {plan.stop_at} (limits.stop_at): {why}. About {done} will be done by then; the rest "
            "stays pending."
        )
    if end.key == "limits.requests_per_day":
        text = f"a day's {plan.requests_per_day:,} requests (limits.requests_per_day) are used up"
        return f"It ends after about {done}{_within(end)}, as {text}, and limits.on_day_limit is stop; resumable."
    where = f"the run ends after about {done}{_within(end)} ({end.key}), resumable."
    return f"The budget is not enough for all records: {where}"


def _later_text(plan: Plan, end: EarlyEnd) -> str:
    after = f"after about {end.records:,}"
    if end.key == "limits.stop_at":
        return f"{plan.stop_at} (limits.stop_at) comes {after}, as {_why_late(plan)}"
    if end.key == "limits.requests_per_day":
        return f"a day's {plan.requests_per_day:,} requests (limits.requests_per_day) end it {after}"
    return f"the budget ({end.key}) ends it {after}"


def _within(end: EarlyEnd) -> str:
    return "" if end.seconds is None or math.isinf(end.seconds) else f", in {span(end.seconds)}"


def _why_late(plan: Plan) -> str:
    if _by_day(plan):
        return _day_text(plan)
    waits = f", {duration(plan.waits_s)} of it outside limits.run_between" if plan.waits_s > 1 else ""
    return f"all of it takes {span(plan.seconds)} by {_slowest(plan)}{waits}"


def _by_day(plan: Plan) -> bool:
    return bool(plan.requests_per_day) and _slowest(plan) == "requests a day"


def _slowest(plan: Plan) -> str:
    return max(plan.durations_s, key=lambda name: plan.durations_s[name], default="nothing")


def _day_text(plan: Plan) -> str:
    of = "the server's" if plan.told.requests_per_day == plan.requests_per_day else "limits.requests_per_day"
    return f"{plan.requests_per_day:,} requests a day ({of}) make it {span(plan.seconds)}"


def _doable_lines(plan: Plan) -> list[str]:
    """Format what a run would achieve if it ends before all records are done."""
    if not plan.ends:
        return []
    share = plan.doable / plan.left
    cost = "price unknown" if plan.cost is None else money(Interval(plan.cost.low * share, plan.cost.high * share))
    tokens = f"{plan.tokens.middle * share:,.0f} tokens"
    return [f"  achievable   {plan.doable:,} records{_within(plan.ends[0])}: {tokens}, {cost}"]


def _concurrency_text(plan: Plan) -> str:
    now = plan.in_flight
    if plan.concurrency is not None:
        pace = plan.limits_per_s * 60
        calls = f"{pace:,.0f} calls a minute" if pace >= 1 else f"{pace * 1_440:,.0f} calls a day"
        need = f"{calls} x {plan.latency_s:.2f} s"
        less = now is not None and now < plan.concurrency
        note = f"; limits.concurrency = {now:,} is less" if less else ""
        return f"{plan.concurrency:,} is enough: {need}, plus half as many in reserve{note}"
    if now is None:
        return "auto will find it: no limit is known that would determine it"
    return f"{now:,} is the only known limit: {2 * now:,} may halve the time (a guess)"


def _cost_line(plan: Plan) -> str:
    if plan.cost is None:
        return UNPRICED
    return money(plan.cost) + (" (what the model would cost)" if plan.simulated else "")


def money(cost: Interval) -> str:
    """Format a cost: `$1.20 to $1.30`."""
    low, high = dollars(cost.low), dollars(cost.high)
    return low if low == high else f"{low} to {high}"


def span(seconds: float | None) -> str:
    """Format a duration, which may be unknown or practically endless."""
    if seconds is None:
        return "not known"
    return "more than 20 years" if math.isinf(seconds) else duration(seconds)


def _until(seconds: float | None) -> str:
    """Format a duration with its end: `1 h 40 min, until about 2026-11-23 02:10`."""
    if seconds is None or math.isinf(seconds):
        return span(seconds)
    end = datetime.now().astimezone() + timedelta(seconds=seconds)
    return f"{span(seconds)}, until about {end:%Y-%m-%d %H:%M}"


def _time_lines(plan: Plan) -> list[str]:
    binds = f"  limited by   {plan.binding}"
    if plan.seconds is None:
        text = "no limit is known: the run is as fast as the server allows"
        return [f"  time         {text}", *_doable_lines(plan), binds]
    waits = f", {duration(plan.waits_s)} of it outside limits.run_between" if plan.waits_s > 1 else ""
    lines = [f"  time         {_until(plan.seconds)}{waits}", *_doable_lines(plan), binds]
    return lines + [f"    by {name:<18} {span(seconds)}" for name, seconds in plan.durations_s.items()]


def _cache_lines(plan: Plan) -> list[str]:
    if not (plan.cache or plan.cached_share):
        return []
    read = f"{plan.cached_share:.0%} of the prompt tokens were read from it"
    return [f"  cache        {'; '.join(filter(None, [plan.cache, read]))}"]


def _lane_lines(plan: Plan) -> list[str]:
    if not plan.left:
        return []
    prices = ["price unknown" if lane.cost is None else money(lane.cost) for lane in plan.lanes]
    width = max(map(len, prices), default=0)
    live = plan.lanes[0].cost if plan.lanes else None
    rows = zip(plan.lanes, prices, strict=True)
    return ["  lanes", *(f"    {lane.name:<6} {price:<{width}}  {_lane_time(lane, live)}" for lane, price in rows)]


def _lane_time(lane: LaneEstimate, live: Interval | None) -> str:
    """Format when the lane would be done, and what it saves compared with live calls."""
    time = _until(lane.seconds) if lane.seconds is not None else lane.note or "time not known"
    more = f" ({lane.note})" if lane.note and lane.seconds is not None else ""
    share = 1.0 if lane.cost is None or live is None or not live.middle else lane.cost.middle / live.middle
    less = f", {1 - share:.0%} less" if share < 1 else ""
    return time + more + less + (" <- this config" if lane.chosen else "")


# -- a rehearsal -------------------------------------------------------------------------------------------------------


def rehearsal_lines(rehearsal: RehearsedPlan) -> list[str]:
    """Format the rehearsal: the planned values and what happened."""
    planned, happened = rehearsal.planned, rehearsal.happened
    rows = [
        ("records", f"{planned.records:,}", f"{happened.records:,}"),
        ("calls", f"{planned.calls:,.0f}", f"{happened.calls:,.0f}"),
        ("tokens", f"{planned.tokens:,.0f}", f"{happened.tokens:,.0f}"),
        ("time", span(planned.seconds), span(happened.seconds)),
        ("requests/min", _rate(planned), _rate(happened)),
        ("refused", f"{planned.refused:,}", f"{happened.refused:,}"),
        ("cost", dollars(planned.cost_usd), dollars(happened.cost_usd)),
        ("limited by", planned.binding, happened.binding),
    ]
    width = max(len(planned) for _, planned, _ in rows)
    used = ", ".join(f"{share:.0%} of {name}" for name, share in rehearsal.used.items())
    source = f"an answer takes {rehearsal.latency_s:.2f} s (from {rehearsal.latency_from})"
    head = f"Rehearsed {happened.records:,} of {rehearsal.plan.records:,} after a pilot of {rehearsal.plan.done:,}"
    return [
        f"{head}, at no cost",
        f"  endpoint      {_tier(rehearsal.tier)}; {source}",
        f"                {'planned':<{width}}  happened",
        *(f"  {name:<12}  {planned:<{width}}  {happened}" for name, planned, happened in rows),
        f"  in use        {used or 'nothing is limited'}",
        *_delay_lines(rehearsal),
        *([f"  stopped       {rehearsal.reason}"] if rehearsal.reason else []),
        _whole_line(rehearsal),
        *_warnings(rehearsal.plan),
        f"Tokens are the endpoint's (characters divided by four); its folder is {rehearsal.folder}.",
    ]


def _delay_lines(rehearsal: RehearsedPlan) -> list[str]:
    """Explain why it took longer than planned although no limit was used up."""
    bound, took_s = rehearsal.happened.binding, rehearsal.happened.seconds or 0.0
    if bound not in (MACHINE, UNKNOWN):
        return []
    what = "This machine was the limit, not the server" if bound == MACHINE else "No limit was used up"
    other = "" if bound == MACHINE else "; it waited after refusals or faults, or other programs were at work"
    effort = rehearsal.effort
    text = f"it took {_short(took_s)} where {_short(rehearsal.planned.seconds or 0.0)} were planned"
    answers = f"an answer came after {_short(effort.answered_in_s)} instead of {_short(rehearsal.latency_s)}"
    share = f"labelpipe and its endpoint used {effort.core_share:.0%} of a core"
    return [f"{what}: {text}; {answers}, and {share}{other}."]


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else span(seconds)


def _rate(workload: Workload) -> str:
    return "not known" if workload.requests_per_minute is None else f"{workload.requests_per_minute:,.0f}"


def _whole_line(rehearsal: RehearsedPlan) -> str:
    whole = rehearsal.whole
    cost = UNPRICED if whole.cost_usd is None else f"{dollars(whole.cost_usd)} if the model were asked"
    counts = f"{whole.calls:,.0f} calls, {whole.tokens:,.0f} tokens, {cost}"
    return f"All {whole.records:,} that are left, at the measured pace: {_until(whole.seconds)}; {counts}"


def _tier(tier: Tier) -> str:
    limits = [
        (tier.requests_per_minute, "requests a minute"),
        (tier.tokens_per_minute, "tokens a minute"),
        (tier.requests_per_day, "requests a day"),
    ]
    return ", ".join(f"{limit:,} {word}" for limit, word in limits if limit is not None) or "no limits"


def codes_text(problems: Mapping[str, int]) -> str:
    """Format the codes, the most frequent first: `invalid_label 17, timeout 2`."""
    return ", ".join(f"{code} {count:,}" for code, count in sorted(problems.items(), key=lambda one: -one[1]))
