"""What a check, a preview, a plan and a rehearsal find: plain facts, between the rooms that find and that show them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.records import Outcome, Request
from pipeline.units import DAY_S

#: What held a rehearsal up where no limit was used up.
MACHINE, UNKNOWN = "this machine", "no limit"
#: How a session ended that could not say so itself.
KILLED, BROKE_OFF = "killed", "broke off"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `ok` is None for a warning.

    `blocks`: the config has no fault there, but a run would not begin as things stand: what to do is the user's choice.
    `card` is the server card, where the server was asked for one.
    """

    name: str
    ok: bool | None
    detail: str
    blocks: bool = False
    card: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview came to. `columns` are the label columns; `stopped` says why it ended early, else None.

    `hopeless`: it was stopped by what has to be fixed first, and no record was answered. `gold` names the field of a
    record that holds the right value of a label column; `requests` are what would be sent, where that was asked for.
    """

    columns: tuple[str, ...]
    outcomes: list[Outcome]
    cost_usd: float | None
    simulated: bool
    stopped: str | None = None
    hopeless: bool = False
    gold: Mapping[str, str] = field(default_factory=dict)
    requests: list[Request] | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """The limits that a server holds, and tells in its headers. None: no such limit, or not known."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A sum over all records left: between `low` and `high`, about 95 % sure if the pilot is like the rest."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """What is expected."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class LaneEstimate:
    """One way to send the calls that are left.

    `cost` is None where no price is known. `seconds` is None where the time is not; then `note` says what is.
    `chosen` is the one of the config.
    """

    name: str
    cost: Interval | None
    seconds: float | None
    note: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class EarlyEnd:
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
    where none is known; `in_flight` is the config's. `told` are limits that the server told. `cache` says what is done
    for the server's prompt cache, and `cached_share` is the share of the prompts that it was read from, from 0 to 1.
    `auto` says how lane "auto" would begin now, and why. `gold` records of `quality.gold` are asked beside those left.
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
    lanes: list[LaneEstimate] = field(default_factory=list)
    simulated: bool = False
    looked_at: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    ends: list[EarlyEnd] = field(default_factory=list)
    failed_path: str = ""
    cache: str = ""
    cached_share: float = 0.0
    auto: str = ""
    gold: int = 0

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
        """Calls that they take, and the gold among them."""
        return (self.left + self.gold) * self.calls_per_record

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


def pace_of(durations_s: Mapping[str, float], calls: float) -> float:
    """Calls a second that all limits but the day's let through; infinite where there is none."""
    longest = max((seconds for name, seconds in durations_s.items() if name != "requests a day"), default=0.0)
    return calls / longest if longest > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Workload:
    """What a number of records takes or took. `cost_usd` is None where the price is unknown."""

    records: int
    calls: float
    tokens: float
    seconds: float | None
    requests_per_minute: float | None
    refused: int
    cost_usd: float | None
    binding: str


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """Seconds until an answer came, on average, and the share of one core that labelpipe and its endpoint used."""

    answered_in_s: float
    core_share: float


@dataclass(frozen=True, slots=True)
class RehearsedPlan:
    """What came of a rehearsal.

    `plan` is for all records, from the rehearsal's own pilot. `planned` and `happened` are of the sample; `whole` is
    all records at what happened. `used` are the shares of the limits that were in use, by name. `effort` is what the
    sample took of this machine, on which the endpoint runs too. `latency_from` says where the endpoint's latency is
    from. `ended` and `reason` are those of the sample's run.
    """

    plan: Plan
    tier: Tier
    latency_s: float
    latency_from: str
    planned: Workload
    happened: Workload
    whole: Workload
    used: Mapping[str, float]
    effort: MachineLoad
    labelled: int
    rejected: int
    failed: int
    ended: str
    reason: str
    folder: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "plan": self.plan.as_dict()}


@dataclass(frozen=True, slots=True)
class Export:
    """What an export came to. `rows` are those that the table has now; `removed` had no labelled record any more.

    `place` names the table and its database without secrets. `made_anew` says that the table was dropped and created,
    because a column has another type or another name now.
    """

    run_dir: str
    place: str
    table: str
    rows: int
    added: int
    updated: int
    removed: int
    made_anew: bool
    simulated: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DataExport:
    """What an export into a folder came to. The keys of `files`, `records` and `rows` are the splits' names.

    `by` is the field whose classes were balanced, None where there is none; `classes` gives the records of each class
    in each split. `groups` are sets of records that were kept together (of one value of `group`, of the same text, or,
    with `near_duplicates`, of texts at least so similar), and `grouped` are the records in them. `leaks` are texts that
    are in more than one split: 0. `left_out` says why labelled records are in no split, and how many. `gold` are
    records that a gold file names: none of them is in train. `remembered` are records that an earlier export had put
    where they are. `examples` are records that the prompt shows to the model with their labels. `former` counts records
    of a chat export that were asked with another prompt than the present one. `certificate` is that of the run's labels
    as it stands today, None where there is none.
    """

    run_dir: str
    folder: str
    format: str
    files: Mapping[str, str]
    records: Mapping[str, int]
    rows: Mapping[str, int]
    split: tuple[float, ...]
    seed: int
    by: str | None
    classes: Mapping[str, Mapping[str, int]]
    group: str | None
    near_duplicates: float | None
    groups: int
    grouped: int
    leaks: int
    left_out: Mapping[str, int]
    gold: int = 0
    remembered: int = 0
    examples: int = 0
    former: int = 0
    certificate: Mapping[str, Any] | None = None
    simulated: bool = False
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ReportFile:
    """The page about a run that was written: where it is, and how large."""

    path: str
    size_bytes: int
    simulated: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A record whose label a classifier doubts: its label, the one that is `given` by the classifier, and how likely
    that takes the record's own `label` to be (0 to 1)."""

    key: str
    label: str
    given: str
    probability: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a simple classifier, cross-validated, makes of the labels.

    `by` is the label field, `texts` the fields that it was learned from (() for all texts). The figures rest on `n`
    records, of the `of` that could be learned from; each was judged by a model that had not seen it. `majority_share`
    is the accuracy of always saying `majority`. `doubts` are the labels that are the least likely, the first one least.
    `left_out` says why labelled records were not used. `draw` is the id of the draw that holds the doubts.
    """

    run_dir: str
    by: str
    texts: tuple[str, ...]
    n: int
    of: int
    folds: int
    features: str
    seed: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    majority: str
    majority_share: float
    macro_f1: float
    classes: Mapping[str, Mapping[str, float]]
    doubts: tuple[Doubt, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    simulated: bool = False
    file: str | None = None
    draw: int | None = None

    @property
    def learnable(self) -> bool:
        """Whether the texts tell something about the labels: the accuracy is clearly above the majority's share."""
        return self.accuracy_low > self.majority_share

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "learnable": self.learnable}
