"""The options of a run, and the parts of one session of it."""

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


#: Makes a file of a summary, and gives what it is and where. The summary names it among its files.
ReportWriter: TypeAlias = Callable[[RunSummary], Awaitable[tuple[str, str]]]
#: What becomes of corrections whose records are labelled again; "": nobody has said.
CorrectionsChoice: TypeAlias = Literal["", "keep", "drop"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run, in addition to the settings.

    `relabel`, `keep`  what to do when the folder's run was made with other settings; neither: ChangedError
    `corrections`      "keep" or "drop" people's answers about records that `relabel` asks again; "": ChangedError
    `retry`            ask again for records without a label; `retry_codes` names those meant, empty: all
    `quiet`            show nothing
    `title`            what stands in the progress line, before the counts
    `resource`         what says how much may be sent, instead of this process's own limits; for runs that share one
    `lease`            the limits of a shard, which a lease server grants
    `base`             the ledger of what was done before there were shards: its records are not asked
    `stop_first`       ends the session where something would be asked; what needs no call is done
    `command`          what follows `labelpipe run` in the command that resumes the run, for the summary
    `provider`         a function that is called instead of the API; for tests and for models of your own
    `overrides`        what the run folder notes as overrides of the config, instead of the settings' own
    `records`          what is labelled instead of the config's input: mappings, a stream of them, or a frame
    `batches`          "wait" for them, "no_wait", or "cancel" those that are open; see `batches.BatchMode`
    `after`            makes a file of the summary before the run is over, and gives its name and path
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
    """What a session is made of.

    `admission` is the door, and `day` its count of the day's requests over sessions; `run_id` names the run in the
    keys of callbacks; `prepare` loads the records' media; `switch` is what signals press. `moved` are files that were
    not as the run had left them, `notes` is what else is to be told at the start and the end; `stamps` are those of the
    inputs before anything was read; `gold` is what the run measures itself by; `panel` votes. `batches` sends them.
    `left` is how many records are left, where the lane is chosen by that and they can be counted. `first_part` is the
    number of its first part in batches. `base` is the ledger of what was done before there were shards.
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
