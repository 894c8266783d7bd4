"""Counters, rates, latency percentiles and the summary of a run: numbers only, no screen."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.records import Outcome, Status, Usage

#: Rates are those of the last minute, in steps of a second.
RATE_SPAN_S = 60
#: Latencies are counted in buckets that grow by 5 %, from 1 ms on: percentiles within 5 % in flat memory.
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
        """The duration that `percent` of all do not exceed, in seconds, within 5 %; None without any."""
        if not self.count:
            return None
        wanted, cumulative = self.count * percent / 100, 0
        for bucket in sorted(self._buckets):
            cumulative += self._buckets[bucket]
            if cumulative >= wanted:
                return 0.001 * math.exp((bucket + 0.5) * _BUCKET)
        return None


class Rate:
    """Events a minute over the last minute (or since the start or the last `restart`, if that is shorter)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._steps: deque[list[float]] = deque()

    def restart(self) -> None:
        """Count from now on: what was before says nothing about what comes."""
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
        """The rate now."""
        now = self._clock()
        self._forget(math.floor(now))
        # A rate of less than a second would be a guess: the first answer is no ten thousand a minute.
        span_s = min(RATE_SPAN_S, max(now - self._started_at, 1.0))
        return sum(count for _, count in self._steps) / span_s * 60

    def _forget(self, second: float) -> None:
        while self._steps and self._steps[0][0] <= second - RATE_SPAN_S:
            self._steps.popleft()


class Stats:
    """What happened in this process. `clock` is any clock in seconds that does not go back."""

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
        """The model answered one call; in a batch nobody knows how long it took."""
        self.answers += 1
        self.usage += usage
        if latency_s is not None:
            self.latencies.add(latency_s)

    def record_retry(self, code: str) -> None:
        """A record is asked again."""
        self.retries[code] += 1

    def record_readings(self, readings: Iterable[str]) -> None:
        """A label was read in an answer that was not as it should be, in these ways."""
        self.readings.update(readings)

    def record_outcome(self, outcome: Outcome) -> None:
        """An outcome is in the ledger."""
        self.outcomes[outcome.status] += 1
        self.outcome_rate.add()
        if outcome.problem is not None:
            self.problems[outcome.problem.code] += 1
        self.record_costs([outcome])

    def record_costs(self, outcomes: Iterable[Outcome]) -> None:
        """What these have cost counts."""
        for outcome in outcomes:
            if outcome.cost_usd is None:
                self.unpriced += 1
            else:
                self.cost_usd += outcome.cost_usd

    @property
    def records(self) -> int:
        """Outcomes written by this process."""
        return self.outcomes.total()


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to. Counts are over the whole run folder, all its sessions; `session_*` are this process's.

    `ended` is complete, interrupted, stopped or (no call was made) replayed; `reason` says why in a sentence,
    `next_step` what to do. `pending` is None when the input was not read to its end (then nobody knows how many are
    left). `calls` are this session's live calls; a batch makes none. `saved_usd` is what the cached tokens would have
    cost more, and says nothing of lanes; `cache_write_usd` is what writing to the cache cost beyond the input's price.
    Both are None where no price is known. `left` is what is to do after a run that ended
    early, and what it would cost: `records`, `exact`, `usd`, `tokens` (each None where unknown) and a `text`. `rows`
    are those that the labels give together where a record may give several, and `without_row` the labelled records
    that give none; None where each gives one. `untold` counts records whose answers did not say what
    they used: they are in no `cost_usd`. `readings` counts this session's answers that were not as they should
    be and could be read in one way only, by what was wrong. `left_out` counts the records that this session read and
    did not take, and `left_out_by` says by which key of [input]; `unclear` of them are those of which `where` could
    not be told. `votes` is what the votes on labels came to: `records`, `votes` cast for them, `needs_review`, and
    Krippendorff's `alpha` of the first two votes (None where nothing can be said); None where one answer is enough.
    `gold` is what gold records in the run came to: `column`, `n`, `right`, `accuracy` with `accuracy_low` and
    `accuracy_high`, and `confusions` (gold, label, count); None without such gold. `measured` is what the latest
    evaluation in the run folder says of each label column: `accuracy`, its interval from `accuracy_low` to
    `accuracy_high`, and `n` gold records. `lanes` says, for each cheaper lane that the run's answers came by, how many
    `answers` these are, what they cost (`cost_usd`), and what they would have cost more at the standard price
    (`saved_usd`; None where unknown). "batch" has also the number of `batches`, how many of them were
    `cancelled`, and how many `records` they answered; "flex" how many answers came from the `standard` tier for
    want of room or time, and from any `other` tier though flex was asked for.
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
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Merged:
    """The shards of a run that were put together: how many, and the outcomes of all of them.

    `complete`: no shard is at work, so they are gone, and the run goes on in any number of them, or in none.
    """

    run_dir: str
    shards: int
    outcomes: int
    complete: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
