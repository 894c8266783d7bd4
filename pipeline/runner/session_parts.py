"""Defines the options of a run, and the parts of one session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pipeline.batches import BatchMode
from pipeline.engine import Panel, Prepare, StopSwitch
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, DayMeter, Resource
from pipeline.notify import Notifier
from pipeline.parts import GoldRecords
from pipeline.providers import BatchApi
from pipeline.readers import RecordInput, Source, Stamp
from pipeline.records import Provider, Request, Response
from pipeline.settings import Settings
from pipeline.stats import RunSummary
from pipeline.store import Ledger, MovedFile, RunDir
from pipeline.task import Task
from pipeline.telemetry import Telemetry

if TYPE_CHECKING:
    from pipeline.leases import LeaseClient


#: Makes a file from a summary, and returns its name and path. The summary lists it among its files.
ReportWriter: TypeAlias = Callable[[RunSummary], Awaitable[tuple[str, str]]]
#: What happens to corrections whose records are labeled again; "": no choice yet.
CorrectionsChoice: TypeAlias = Literal["", "keep", "drop"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run, in addition to the settings.

    `relabel`, `keep`  what to do if the folder's run was made with other settings; neither: ChangedError
    `corrections`      "keep" or "drop" people's answers about records that `relabel` asks again; "": ChangedError
    `retry`            ask again about records without a label; `retry_codes` selects by code, empty: all
    `quiet`            show nothing
    `title`            the text before the counts in the progress line
    `resource`         decides how much may be sent, instead of this process's own limits; for runs that share one
    `lease`            the limits of a shard, which a lease server grants
    `base`             the ledger from before sharding; its records are not asked
    `stop_first`       ends the session before anything is asked; what needs no call is done
    `command`          what follows `labelpipe run` in the command that resumes the run, for the summary
    `provider`         a function to call instead of the API; for tests and for your own models
    `overrides`        what the run folder records as overrides of the config, instead of the settings' own
    `records`          what to label instead of the config's input: mappings, a stream of them, or a frame
    `batches`          "wait" for them, "no_wait", or "cancel" open ones; see `batches.BatchMode`
    `after`            makes a file from the summary before the run ends, and returns its name and path
    """

    relabel: bool = False
    keep: bool = False
    corrections: CorrectionsChoice = ""
    retry: bool = False
    retry_codes: frozenset[str] = frozenset()
    quiet: bool = False
    title: str = ""
    provider: Provider | Callable[[Request], Awaitable[Response]] | None = None
    resource: Resource | None = None
    lease: LeaseClient | None = None
    base: Path | None = None
    stop_first: LabelpipeError | None = None
    command: str | None = None
    records: RecordInput | None = None
    overrides: Sequence[str] | None = None
    after: ReportWriter | None = None
    batches: BatchMode | str = BatchMode.WAIT


@dataclass(frozen=True, slots=True)
class SessionParts:
    """The parts of a session.

    `admission` admits calls, and `day` counts the day's requests over sessions. `run_id` names the run in the keys of
    callbacks. `prepare` loads the records' media. `switch` receives signals. `moved` are files that differ from what
    the run wrote, and `notes` are what else to report at the start and the end. `stamps` are those of the inputs before
    anything was read. `gold` measures the run. `panel` votes. `batches` sends batches. `left` is how many records are
    left, if the lane choice depends on that and they can be counted. `first_part` is the number of the session's first
    part in batches. `base` is the ledger from before sharding.
    """

    settings: Settings
    options: RunOptions
    task: Task
    sources: Sequence[Source]
    run_dir: RunDir
    ledger: Ledger
    base: Ledger | None
    provider: Provider
    day: DayMeter
    admission: Admission
    notifier: Notifier
    switch: StopSwitch
    telemetry: Telemetry | None
    prepare: Prepare | None
    run_id: str
    was_simulated: bool
    moved: Sequence[MovedFile]
    notes: Sequence[str]
    stamps: Sequence[Stamp | None]
    gold: GoldRecords | None
    panel: Panel | None
    batches: BatchApi | None
    left: int | None
    first_part: int
