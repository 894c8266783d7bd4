"""What a person reads of a plan: what stands in the way comes first."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from pipeline.facts import MACHINE, UNKNOWN, EarlyEnd, Interval, LaneEstimate, Plan, RehearsedPlan, Tier, Workload
from pipeline.units import DAY_S, UNPRICED, dollars, duration

#: More than this is told as a need of days in the first line.
_LONG_S = DAY_S
#: A larger share of records without a label is told first.
MISSING_SHARE = 0.1


def plan_lines(found: Plan) -> list[str]:
    """The plan for a person."""
    if not found.left:
        return [*_label_lines(found), f"Nothing is left to label: all {found.records:,} records have an outcome"]
    return [
        *_warnings(found),
        f"{found.left:,} of {found.records:,} records are left; this is from {found.pilot:,} that were asked",
        *(
            [f"  gold         {found.gold:,} gold records are asked beside them; all figures count them"]
            if found.gold
            else []
        ),
        f"  tokens       {found.tokens.low:,.0f} to {found.tokens.high:,.0f}",
        f"  cost         {_cost_line(found)}",
        *_time_lines(found),
        f"  concurrency  {_concurrency_text(found)}",
        f"  an answer    takes {found.latency_s:.2f} s; {found.calls_per_record:.2f} calls a record",
        *_cache_lines(found),
        *([] if found.told == Tier() else [f"  the server   says {_tier(found.told)}"]),
        *_lane_lines(found),
        *([f"  {found.auto}"] if found.auto else []),
    ]


def _gold_lines(found: Plan) -> list[str]:
    return [f"  gold         {found.gold:,} gold records are asked beside them and counted here"] * bool(found.gold)


def _warnings(found: Plan) -> list[str]:
    lines = _label_lines(found)
    if found.ends:
        lines.append(_ends_line(found))
    elif _by_day(found) and (found.seconds or 0) > _LONG_S:
        lines.append(f"It takes days: {_day_text(found)}.")
    if found.budget_short and found.budget_records is None:
        lines.append("The budget may not do for all of it: the run would stop there, resumable.")
    return lines


def _label_lines(found: Plan) -> list[str]:
    """Where too few of those that were asked have a label: a plan for the rest is worth little then."""
    missing, of = found.without_label, found.looked_at
    if missing <= MISSING_SHARE * of:
        return []
    many = f"None of the {of:,} records so far got a label"
    if missing < of:
        many = f"{missing:,} of the {of:,} records so far got no label"
    todo = f"Mend that first: {found.failed_path} says why of each, and labelpipe preview tries again"
    return [f"{many}: {codes_text(found.problems)}. {todo}."]


# -- what ends the run before all is done ------------------------------------------------------------------------------


def _ends_line(found: Plan) -> str:
    first, *later = found.ends
    more = [_later_text(found, end) for end in later]
    return _first_text(found, first) + (f" Without that: {'; '.join(more)}." if more else "")


def _first_text(found: Plan, end: EarlyEnd) -> str:
    done = f"{end.records:,} of {found.left:,} records"
    if end.key == "limits.stop_at":
        why = _why_late(found)
        return (
            f"It cannot be done by {found.stop_at} (limits.stop_at): {why}. About {done} are done by then; the rest "
            "stays pending."
        )
    if end.key == "limits.requests_per_day":
        text = f"a day's {found.requests_per_day:,} requests (limits.requests_per_day) are used up"
        return f"It ends after about {done}{_within(end)}, as {text}, and limits.on_day_limit is stop; resumable."
    return f"The budget does not do for all of it: it ends after about {done}{_within(end)} ({end.key}), resumable."


def _later_text(found: Plan, end: EarlyEnd) -> str:
    after = f"after about {end.records:,}"
    if end.key == "limits.stop_at":
        return f"{found.stop_at} (limits.stop_at) comes {after}, as {_why_late(found)}"
    if end.key == "limits.requests_per_day":
        return f"a day's {found.requests_per_day:,} requests (limits.requests_per_day) end it {after}"
    return f"the budget ({end.key}) ends it {after}"


def _within(end: EarlyEnd) -> str:
    return "" if end.seconds is None or math.isinf(end.seconds) else f", in {span(end.seconds)}"


def _why_late(found: Plan) -> str:
    if _by_day(found):
        return _day_text(found)
    waits = f", {duration(found.waits_s)} of it outside limits.run_between" if found.waits_s > 1 else ""
    return f"all of it takes {span(found.seconds)} by {_slowest(found)}{waits}"


def _by_day(found: Plan) -> bool:
    return bool(found.requests_per_day) and _slowest(found) == "requests a day"


def _slowest(found: Plan) -> str:
    return max(found.durations_s, key=lambda name: found.durations_s[name], default="nothing")


def _day_text(found: Plan) -> str:
    of = "the server's" if found.told.requests_per_day == found.requests_per_day else "limits.requests_per_day"
    return f"{found.requests_per_day:,} requests a day ({of}) make it {span(found.seconds)}"


def _doable_lines(found: Plan) -> list[str]:
    """What a run would come to, beside what all of it takes."""
    if not found.ends:
        return []
    share = found.doable / found.left
    cost = "price unknown" if found.cost is None else money(Interval(found.cost.low * share, found.cost.high * share))
    tokens = f"{found.tokens.middle * share:,.0f} tokens"
    return [f"  in fact      {found.doable:,} records{_within(found.ends[0])}: {tokens}, {cost}"]


def _concurrency_text(found: Plan) -> str:
    now = found.in_flight
    if found.concurrency is not None:
        pace = found.limits_per_s * 60
        calls = f"{pace:,.0f} calls a minute" if pace >= 1 else f"{pace * 1_440:,.0f} calls a day"
        need = f"{calls} x {found.latency_s:.2f} s"
        less = now is not None and now < found.concurrency
        held = f"; limits.concurrency = {now:,} is less" if less else ""
        return f"{found.concurrency:,} is enough: {need}, and half as many again{held}"
    if now is None:
        return "auto finds it: no limit is known that would say what serves"
    return f"{now:,} is all that is known to limit: {2 * now:,} may halve the time (a guess)"


def _cost_line(found: Plan) -> str:
    if found.cost is None:
        return UNPRICED
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
    binds = f"  what binds   {found.binding}"
    if found.seconds is None:
        text = "no limit is known that would hold the calls up: it is as fast as the server lets it"
        return [f"  time         {text}", *_doable_lines(found), binds]
    waits = f", {duration(found.waits_s)} of it outside limits.run_between" if found.waits_s > 1 else ""
    lines = [f"  time         {_until(found.seconds)}{waits}", *_doable_lines(found), binds]
    return lines + [f"    by {name:<18} {span(seconds)}" for name, seconds in found.durations_s.items()]


def _cache_lines(found: Plan) -> list[str]:
    if not (found.cache or found.cached_share):
        return []
    read = f"{found.cached_share:.0%} of the prompt tokens were read from it"
    return [f"  cache        {'; '.join(filter(None, [found.cache, read]))}"]


def _lane_lines(found: Plan) -> list[str]:
    if not found.left:
        return []
    prices = ["price unknown" if lane.cost is None else money(lane.cost) for lane in found.lanes]
    width = max(map(len, prices), default=0)
    live = found.lanes[0].cost if found.lanes else None
    rows = zip(found.lanes, prices, strict=True)
    return ["  lanes", *(f"    {lane.name:<6} {price:<{width}}  {_lane_time(lane, live)}" for lane, price in rows)]


def _lane_time(lane: LaneEstimate, live: Interval | None) -> str:
    """When it would be done, and what it saves beside live calls."""
    time = _until(lane.seconds) if lane.seconds is not None else lane.note or "time not known"
    more = f" ({lane.note})" if lane.note and lane.seconds is not None else ""
    share = 1.0 if lane.cost is None or live is None or not live.middle else lane.cost.middle / live.middle
    less = f", {1 - share:.0%} less" if share < 1 else ""
    return time + more + less + (" <- this config" if lane.chosen else "")


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
        *_held_up_lines(found),
        *([f"  stopped       {found.reason}"] if found.reason else []),
        _whole_line(found),
        *_warnings(found.plan),
        f"Tokens are the endpoint's (characters divided by four); its folder is {found.folder}.",
    ]


def _held_up_lines(found: RehearsedPlan) -> list[str]:
    """Where no limit was used up, and yet it took longer than planned."""
    bound, took_s = found.happened.binding, found.happened.seconds or 0.0
    if bound not in (MACHINE, UNKNOWN):
        return []
    what = "This machine was the limit, not the server" if bound == MACHINE else "No limit was used up"
    other = "" if bound == MACHINE else "; it waited after refusals or faults, or other programs were at work"
    effort = found.effort
    took = f"it took {_short(took_s)} where {_short(found.planned.seconds or 0.0)} were planned"
    answers = f"an answer came after {_short(effort.answered_in_s)} instead of {_short(found.latency_s)}"
    share = f"labelpipe and its endpoint used {effort.core_share:.0%} of a core"
    return [f"{what}: {took}; {answers}, and {share}{other}."]


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else span(seconds)


def _rate(took: Workload) -> str:
    return "not known" if took.requests_per_minute is None else f"{took.requests_per_minute:,.0f}"


def _whole_line(found: RehearsedPlan) -> str:
    whole = found.whole
    counts = f"{whole.calls:,.0f} calls, {whole.tokens:,.0f} tokens, {_whole_cost(found)}"
    return f"All {whole.records:,} that are left, at what happened: {_until(whole.seconds)}; {counts}"


def _whole_cost(found: RehearsedPlan) -> str:
    cost = found.whole.cost_usd
    return UNPRICED if cost is None else f"{dollars(cost)} if the model were asked"


def _tier(tier: Tier) -> str:
    limits = [
        (tier.requests_per_minute, "requests a minute"),
        (tier.tokens_per_minute, "tokens a minute"),
        (tier.requests_per_day, "requests a day"),
    ]
    return ", ".join(f"{limit:,} {word}" for limit, word in limits if limit is not None) or "no limits"


def codes_text(problems: Mapping[str, int]) -> str:
    """`invalid_label 17, timeout 2`, the most frequent first."""
    return ", ".join(f"{code} {count:,}" for code, count in sorted(problems.items(), key=lambda one: -one[1]))
