"""What a session is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.batches import BatchMode, BatchQueue
from pipeline.engine import Panel, Prepare, StopSwitch
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, DayMeter
from pipeline.notify import Notifier
from pipeline.parts import GoldRecords
from pipeline.providers import BatchApi
from pipeline.readers import Source, Stamp
from pipeline.records import Provider
from pipeline.runner.summary import ReportWriter
from pipeline.settings import Settings
from pipeline.store import Ledger, MovedFile, RunDir
from pipeline.task import Task
from pipeline.telemetry import Telemetry

if TYPE_CHECKING:
    from pipeline.leases import LeaseClient, SharedGoldCounts


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is made of.

    `admission` is the door, and `day` its count of the day's requests over sessions; `run_id` names the run in the
    keys of callbacks; `prepare` loads the records' media; `title` stands in the progress line; `switch` is what
    signals press. `moved` are files that were not as the run had left them, `notes` is what else is to be told at the
    start and the end; `stamps` are those of the inputs before anything was read; `choice` is "relabel" or "keep" where
    the user gave that; `after` makes a file of the summary; `gold` is what the run measures itself by; `panel` votes.
    `left` is how many records are left, where the lane is chosen by that and they can be counted.
    `lease` is what a shard has of the limits of all, and `first_part` the number of its first part in batches.
    `base` is the ledger of what was done before there were shards; `stop_first` ends the session where it would ask.
    """

    settings: Settings
    task: Task
    sources: Sequence[Source]
    run_dir: RunDir
    ledger: Ledger
    provider: Provider
    day: DayMeter
    admission: Admission
    notifier: Notifier
    switch: StopSwitch
    telemetry: Telemetry | None = None
    prepare: Prepare | None = None
    title: str = ""
    run_id: str = ""
    was_simulated: bool = False
    moved: Sequence[MovedFile] = ()
    notes: Sequence[str] = ()
    stamps: Sequence[Stamp | None] = ()
    choice: str = ""
    after: ReportWriter | None = None
    gold: GoldRecords | None = None
    panel: Panel | None = None
    batches: BatchApi | None = None
    left: int | None = None
    mode: BatchMode = BatchMode.WAIT
    lease: LeaseClient | None = None
    first_part: int = 1
    base: Ledger | None = None
    stop_first: LabelpipeError | None = None

    @property
    def queue(self) -> BatchQueue | None:
        """The server's queue of batches, where other shards fill it too."""
        return None if self.lease is None else self.lease.queue

    @property
    def tally(self) -> SharedGoldCounts | None:
        """What other shards have found by their gold records."""
        return None if self.lease is None else self.lease.gold
