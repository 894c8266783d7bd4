"""Counters, rates, latency percentiles, and the summary of a run: numbers only, no display."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.records import Outcome, Status, Usage

#: Rates cover the last minute, in steps of a second.
RATE_SPAN_S = 60
#: Latency buckets grow by 5 %, from 1 ms on: percentiles within 5 % in flat memory.
_BUCKET = math.log(1.05)


class Latencies:
    """Percentiles of many durations in flat memory."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._buckets[int(math.log(max(seconds, 0.001) / 0.001) / _BUCKET)] += 1
        self.count += 1

    def percentile_s(self, percent: float) -> float | None:
        """Return the seconds that `percent` of all durations do not exceed, within 5 %; None without durations."""
        if not self.count:
            return None
        wanted, cumulative = self.count * percent / 100, 0
        for bucket in sorted(self._buckets):
            cumulative += self._buckets[bucket]
            if cumulative >= wanted:
                return 0.001 * math.exp((bucket + 0.5) * _BUCKET)
        return None


class Rate:
    """Events per minute over the last minute (or since the start or the last `restart`, if that is shorter)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._steps: deque[list[float]] = deque()

    def restart(self) -> None:
        """Count from now on, because earlier events no longer predict the rate."""
        self._started_at = self._clock()
        self._steps.clear()

    def add(self, count: float = 1) -> None:
        """Count events now."""
        second = math.floor(self._clock())
        if self._steps and self._steps[-1][0] == second:
            self._steps[-1][1] += count
        else:
            self._steps.append([second, count])
            self._forget(second)

    def per_minute(self) -> float:
        """Return the current rate."""
        now = self._clock()
        self._forget(math.floor(now))
        # A rate over less than a second would be a guess: one first answer does not mean ten thousand per minute.
        span_s = min(RATE_SPAN_S, max(now - self._started_at, 1.0))
        return sum(count for _, count in self._steps) / span_s * 60

    def _forget(self, second: float) -> None:
        while self._steps and self._steps[0][0] <= second - RATE_SPAN_S:
            self._steps.popleft()


class Stats:
    """What happened in this process. `clock` is any monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started_at = clock()
        self.answers = 0
        self.usage = Usage()
        self.cost_usd = 0.0
        self.unpriced = 0
        self.outcomes: Counter[Status] = Counter()
        self.problems: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.readings: Counter[str] = Counter()
        self.flex: Counter[str] = Counter()
        self.flex_usd = self.flex_saved_usd = 0.0
        self.latencies = Latencies()
        self.outcome_rate = Rate(clock)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.started_at

    def record_answer(self, usage: Usage, latency_s: float | None) -> None:
        """Count an answered call. The latency is unknown for calls in a batch."""
        self.answers += 1
        self.usage += usage
        if latency_s is not None:
            self.latencies.add(latency_s)

    def record_retry(self, code: str) -> None:
        """Count a record that is asked again."""
        self.retries[code] += 1

    def record_readings(self, readings: Iterable[str]) -> None:
        """Count an answer that was accepted although it was not in the right form, by the ways in which it was not."""
        self.readings.update(readings)

    def record_outcome(self, outcome: Outcome) -> None:
        """Count an outcome that is in the ledger."""
        self.outcomes[outcome.status] += 1
        self.outcome_rate.add()
        if outcome.problem is not None:
            self.problems[outcome.problem.code] += 1
        self.record_costs([outcome])

    def record_costs(self, outcomes: Iterable[Outcome]) -> None:
        """Add the costs of these outcomes."""
        for outcome in outcomes:
            if outcome.cost_usd is None:
                self.unpriced += 1
            else:
                self.cost_usd += outcome.cost_usd

    @property
    def records(self) -> int:
        """Outcomes that this process wrote."""
        return self.outcomes.total()


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The result of a run. Counts cover the whole run folder with all its sessions; `session_*` are this process's.

    `ended` is complete, interrupted, stopped, or (if no call was made) replayed; `reason` explains it in a sentence,
    and `next_step` says what to do. `pending` is None if the input was not read to its end, so that nobody knows how
    many records are left. `calls` are this session's live calls; a batch makes none. `saved_usd` is how much more the
    cached tokens would have cost, without the savings of lanes; `cache_write_usd` is what writing to the cache cost
    beyond the input's price. Both are None if no price is known. `left` is what remains after a run that ended early,
    and what it would cost: `records`, `exact`, `usd`, `tokens` (each None if unknown), and a `text`. `rows` counts the
    rows of all labels if a record may give several, and `without_row` the labeled records that give none; None if each
    gives one. `untold` counts records whose answers did not report their usage: no `cost_usd` includes them. `readings`
    counts this session's answers that were not in the right form and could be read in only one way, by what was wrong.
    `left_out` counts the records that this session read and did not take, and `left_out_by` counts them by the key of
    [input]; for `unclear` of them, `where` could not be evaluated. `votes` is the result of votes on labels: `records`,
    `votes` cast for them, `needs_review`, and Krippendorff's `alpha` of the first two votes (None if it is undefined);
    None if one answer is enough. `gold` is the result of gold records in the run: `column`, `n`, `right`, `accuracy`
    with `accuracy_low` and `accuracy_high`, and `confusions` (gold, label, count); None without such gold. `measured`
    is the latest evaluation in the run folder for each label column: `accuracy`, its interval from `accuracy_low` to
    `accuracy_high`, and `n` gold records. `lanes` has, for each cheaper lane that answers came by, the number of
    `answers`, what they cost (`cost_usd`), and how much more they would have cost at the standard price (`saved_usd`;
    None if unknown). "batch" has also the number of `batches`, how many of them were `cancelled`, and how many
    `records` they answered; "flex" has how many answers came from the `standard` tier for lack of room or time, and
    from any `other` tier although flex was requested.
    """

    run_dir: str
    ended: str
    exit_code: int
    labelled: int
    rejected: int
    failed: int
    pending: int | None
    problems: Mapping[str, int]
    session_records: int
    session_s: float
    calls: int
    refusals: int
    retries: Mapping[str, int]
    usage: Usage
    cost_usd: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    outages: int
    outage_s: float
    simulated: bool
    reason: str = ""
    next_step: str = ""
    saved_usd: float | None = None
    cache_write_usd: float | None = None
    left: Mapping[str, Any] | None = None
    rows: int | None = None
    without_row: int | None = None
    untold: int = 0
    readings: Mapping[str, int] = field(default_factory=dict)
    learned: Mapping[str, float] = field(default_factory=dict)
    estimated: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    copied: int = 0
    left_out: int = 0
    left_out_by: Mapping[str, int] = field(default_factory=dict)
    votes: Mapping[str, Any] | None = None
    gold: Mapping[str, Any] | None = None
    lanes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def records(self) -> int:
        """Records with an outcome."""
        return self.labelled + self.rejected + self.failed

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Merged:
    """The shards of a run that were merged: how many, and the outcomes of all of them.

    `complete`: no shard is at work, so the shards were removed, and the run continues with any number of shards or
    without.
    """

    run_dir: str
    shards: int
    outcomes: int
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)
