"""What a full run will take, from a pilot: tokens, money, time, and which limit binds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.limits import Price
from pipeline.progress import dollars, duration
from pipeline.readers import read_records
from pipeline.records import Outcome
from pipeline.runner.parts import hours_of, is_simulated, price_for, sources_of
from pipeline.runner.start import Wishes, arun
from pipeline.settings import Settings
from pipeline.store import Ledger, RunDir

#: Outcomes of the run folder that are looked at, at the most.
LOOKED_AT = 2_000
#: A normal distribution's two-sided 95 %.
Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A sum over all records left: between `low` and `high`, about 95 % sure if the pilot is like the rest."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to do. Durations in seconds by what would limit them; `binding` is the longest's name.

    `cost` is None where the price is unknown. `late_by_s` is above 0 where `limits.stop_at` comes first.
    """

    records: int
    done: int
    pilot: int
    calls_per_record: float
    latency_s: float
    tokens: Interval
    cost: Interval | None
    durations_s: dict[str, float] = field(default_factory=dict)
    concurrency: int = 1
    budget_short: bool = False
    late_by_s: float = 0.0
    simulated: bool = False

    @property
    def left(self) -> int:
        """Records without an outcome."""
        return max(0, self.records - self.done)

    @property
    def binding(self) -> str:
        """What the time depends on."""
        return max(self.durations_s, key=lambda name: self.durations_s[name], default="nothing")

    @property
    def seconds(self) -> float:
        """How long the rest takes."""
        return max(self.durations_s.values(), default=0.0)


async def plan(settings: Settings, pilot: int = 20, *, quiet: bool = False) -> Plan:
    """Label the first `pilot` records, which are kept in the run, and say what the rest takes. Raises SetupError."""
    records = await _count(settings)
    await arun(settings.again([f"input.limit={pilot}"]), Wishes(quiet=quiet))
    run_dir = RunDir(Path(settings.output.dir))
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        done = sum((await ledger.count_by_status()).values())
        asked = [outcome for _, outcome in await ledger.rows_after(0, LOOKED_AT) if outcome.attempts]
    if not asked:
        raise SetupError("no record of the pilot was answered, so nothing can be said; see the lines above")
    return _planned(settings, records, done, asked, price_for(settings))


async def _count(settings: Settings) -> int:
    wanted = settings.input
    batches = read_records(sources_of(settings), key=wanted.key, encoding=wanted.encoding, limit=wanted.limit)
    async with aclosing(batches):
        return sum([len(batch) async for batch in batches])


def _planned(settings: Settings, records: int, done: int, asked: Sequence[Outcome], price: Price | None) -> Plan:
    left = max(0, records - done)
    calls = statistics.fmean(outcome.attempts for outcome in asked)
    latency_s = statistics.fmean(outcome.latency_s for outcome in asked)
    tokens = _interval([outcome.usage.total for outcome in asked], left)
    cost = None if price is None else _interval([price.cost_usd(outcome.usage) for outcome in asked], left)
    durations = _durations(settings, left * calls, latency_s, (tokens.low + tokens.high) / 2)
    limits = settings.limits
    rate_per_s = min(
        (left * calls / seconds for name, seconds in durations.items() if name != "concurrency" and seconds > 0),
        default=64 / max(latency_s, 0.001),
    )
    return Plan(
        records=records,
        done=done,
        pilot=len(asked),
        calls_per_record=calls,
        latency_s=latency_s,
        tokens=tokens,
        cost=cost,
        durations_s=durations,
        concurrency=max(1, math.ceil(rate_per_s * latency_s * 1.5)),
        budget_short=bool(cost and limits.budget_usd and cost.high > limits.budget_usd)
        or bool(limits.budget_tokens and tokens.high > limits.budget_tokens),
        late_by_s=_late_by_s(settings, max(durations.values(), default=0.0)),
        simulated=is_simulated(settings),
    )


def _interval(values: Sequence[float], count: int) -> Interval:
    mean = statistics.fmean(values)
    spread = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Interval(max(0.0, mean - spread) * count, (mean + spread) * count)


def _durations(settings: Settings, calls: float, latency_s: float, tokens: float) -> dict[str, float]:
    limits = settings.limits
    found: dict[str, float] = {}
    if limits.concurrency != "auto":
        found["concurrency"] = calls * latency_s / limits.concurrency
    if limits.requests_per_minute:
        found["requests a minute"] = calls / limits.requests_per_minute * 60
    if limits.tokens_per_minute:
        found["tokens a minute"] = tokens / limits.tokens_per_minute * 60
    if limits.requests_per_day and calls > limits.requests_per_day:
        found["requests a day"] = (math.ceil(calls / limits.requests_per_day) - 1) * 86_400.0
    return found


def _late_by_s(settings: Settings, seconds: float) -> float:
    hours, now = hours_of(settings), datetime.now().astimezone()
    ends_at = None if hours is None else hours.ends_at(now)
    return 0.0 if ends_at is None else max(0.0, seconds - (ends_at - now).total_seconds())


def plan_lines(found: Plan) -> list[str]:
    """The plan for a person; what stands in the way comes first."""
    lines = []
    if found.late_by_s:
        lines.append(f"It cannot be done by limits.stop_at: {duration(found.late_by_s)} short. The rest stays pending.")
    if found.budget_short:
        lines.append("The budget may not do for all of it: the run would stop there, resumable.")
    lines.append(f"{found.left:,} of {found.records:,} records are left; this is from {found.pilot:,} that were asked")
    lines.append(f"  tokens       {found.tokens.low:,.0f} to {found.tokens.high:,.0f}")
    if found.cost is None:
        lines.append("  cost         price unknown; set model.price")
    else:
        simulated = " (what the model would cost)" if found.simulated else ""
        lines.append(f"  cost         {dollars(found.cost.low)} to {dollars(found.cost.high)}{simulated}")
    if found.durations_s:
        end = datetime.now().astimezone() + timedelta(seconds=found.seconds)
        lines.append(f"  time         {duration(found.seconds)}, until about {end:%Y-%m-%d %H:%M}")
        lines.append(f"  what binds   {found.binding}")
        lines += [f"    by {name:<18} {duration(seconds)}" for name, seconds in found.durations_s.items()]
    lines.append(f"  concurrency  {found.concurrency} is enough (an answer takes {found.latency_s:.2f} s, "
                 f"{found.calls_per_record:.2f} calls a record)")  # fmt: skip
    return lines
