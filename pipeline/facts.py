"""The results of checks, previews, plans, rehearsals, and exports: data, between those who compute and who show it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.records import Outcome, Request
from pipeline.units import DAY_S

#: What slowed a rehearsal down if it did not use up any limit.
MACHINE, UNKNOWN = "this machine", "no limit"
#: How a session ended that could not report it.
KILLED, BROKE_OFF = "killed", "broke off"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. `ok` is None for a warning.

    `blocks`: the config is right in this point, but a run could not begin now, and the user has to choose what to do.
    `card` is the server card, if the server was asked for one.
    """

    name: str
    ok: bool | None
    detail: str
    blocks: bool = False
    card: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of a preview. `columns` are the label columns; `stopped` says why it ended early, else None.

    `hopeless`: something that must be fixed first stopped it, and no record was answered. `gold` maps a label column to
    the field of a record that holds the right value; `requests` are what would be sent, if that was requested.
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
    """The limits of a server, as its headers report them. None: no such limit, or unknown."""

    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A sum over all records left: between `low` and `high` with about 95 % confidence, if they are like the pilot."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The expected value."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class LaneEstimate:
    """One way to send the remaining calls.

    `cost` is None if no price is known. `seconds` is None if the time is unknown; `note` then says what is known.
    `chosen` is the lane of the config.
    """

    name: str
    cost: Interval | None
    seconds: float | None
    note: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """What ends the run early: the setting, after about how many records, and after how many seconds.

    `seconds` is None if nothing is known to limit the calls.
    """

    key: str
    records: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What remains to be done. `durations_s` are the seconds for each limit if it were the only one.

    `looked_at` records have an outcome in the run folder and were examined; `problems` says why some of them have no
    label, and `pilot` of them were asked. `cost` is None if the price is unknown, `seconds` if no limit of the calls is
    known. `waits_s` is the part of it spent waiting for the permitted hours. `ends` are what ends the run early, the
    first one first. `late_by_s` is above 0 if `limits.stop_at` is too early for all records; `done_by_stop` records
    could be done by then. `budget_records` is how many records the budget covers, None if it covers all;
    `budget_short` is true if it may not cover them. `concurrency` is what the limits can use, None if no limit is
    known; `in_flight` is that of the config. `told` are limits that the server reported. `cache` describes the use of
    the server's prompt cache, and `cached_share` is the share of the prompts that was read from it, from 0 to 1.
    `auto` says how lane "auto" would begin now, and why. `gold` records of `quality.gold` are asked in addition.
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
        """Examined records that have an outcome and no label."""
        return sum(self.problems.values())

    @property
    def doable(self) -> int:
        """Records that a run would reach before something ends it."""
        return self.ends[0].records if self.ends else self.left

    @property
    def left(self) -> int:
        """Records without an outcome."""
        return max(0, self.records - self.done)

    @property
    def calls(self) -> float:
        """The calls for the records left and for the gold among them."""
        return (self.left + self.gold) * self.calls_per_record

    @property
    def binding(self) -> str:
        """What the end depends on: the budget if it ends the run first, else the limit that takes the longest."""
        if self.ends and self.ends[0].key.startswith("limits.budget"):
            return "budget"
        if not self.left:
            return "nothing"
        return max(self.durations_s, key=lambda name: self.durations_s[name], default="nothing")

    @property
    def per_s(self) -> float:
        """Calls per second while calls may leave; infinite if nothing is known to limit them."""
        return pace_of(self.durations_s, self.calls)

    @property
    def limits_per_s(self) -> float:
        """Calls per second that the limits allow, without concurrency; the day's limit counts only if it is alone."""
        own = {name: seconds for name, seconds in self.durations_s.items() if name != "concurrency"}
        pace = pace_of(own, self.calls)
        return self.requests_per_day / DAY_S if math.isinf(pace) and self.requests_per_day else pace

    @property
    def ends_at(self) -> datetime | None:
        """When the run would end if it began now; None if that is unknown."""
        if self.seconds is None or math.isinf(self.seconds):
            return None
        return datetime.now().astimezone() + timedelta(seconds=self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        ends_at = self.ends_at
        more = {
            "left": self.left,
            "doable": self.doable,
            "binding": self.binding,
            "ends_at": ends_at and ends_at.isoformat("T", "seconds"),
        }
        return {**asdict(self), **more}


def pace_of(durations_s: Mapping[str, float], calls: float) -> float:
    """Return the calls per second that all limits except the day's allow; infinite without any."""
    longest = max((seconds for name, seconds in durations_s.items() if name != "requests a day"), default=0.0)
    return calls / longest if longest > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Workload:
    """What a number of records takes or took. `cost_usd` is None if the price is unknown."""

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
    """The mean seconds until an answer, and the share of one core that labelpipe and its endpoint used."""

    answered_in_s: float
    core_share: float


@dataclass(frozen=True, slots=True)
class RehearsedPlan:
    """The result of a rehearsal.

    `plan` is for all records, from the rehearsal's own pilot. `planned` and `happened` are for the sample; `whole`
    scales what happened to all records. `used` has the share of each limit that was in use, by name. `effort` is what
    the sample took of this machine, which the endpoint runs on too. `latency_from` says where the endpoint's latency
    comes from. `ended` and `reason` are those of the sample's run.
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
        """Return plain values, for JSON."""
        return {**asdict(self), "plan": self.plan.as_dict()}


@dataclass(frozen=True, slots=True)
class Export:
    """The result of an export to a table. `rows` is the table's size now; `removed` rows lost their labeled records.

    `place` names the table and its database without secrets. `made_anew`: the table was dropped and created again,
    because a column has a new type or a new name.
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
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DataExport:
    """The result of an export into a folder. The keys of `files`, `records`, and `rows` are the names of the splits.

    `by` is the field whose classes were balanced, None without one; `classes` has the records of each class in each
    split. `groups` are sets of records that were kept together (one value of `group`, the same text, or, with
    `near_duplicates`, texts at least that similar), and `grouped` are the records in them. `leaks` are texts in more
    than one split: 0. `left_out` says why labeled records are in no split, and how many. `gold` are records that a gold
    file names; none of them is in train. `remembered` records are where an earlier export put them. `examples` are
    records that the prompt shows to the model with their labels. `former` counts records of a chat export that were
    asked with an earlier prompt. `certificate` is that of the run's labels as it stands today, None without one.
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
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ReportFile:
    """The page about a run: where it was written, and how large it is."""

    path: str
    size_bytes: int
    simulated: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A record whose label a classifier doubts: its label, the classifier's (`given`), and the probability (0 to 1)
    that the classifier gives to the record's own `label`."""

    key: str
    label: str
    given: str
    probability: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """How well a simple, cross-validated classifier learns the labels.

    `by` is the label field, `texts` the fields that it learned from (() for all texts). The figures are of `n` records
    out of the `of` that were usable; each was predicted by a model that had not seen it. `majority_share` is the
    accuracy of always predicting `majority`. `doubts` are the least likely labels, the least likely one first.
    `left_out` says why labeled records were not used. `draw` is the id of the draw that holds the doubts.
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
        """Whether the texts predict the labels: the accuracy is clearly above the majority's share."""
        return self.accuracy_low > self.majority_share

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "learnable": self.learnable}
