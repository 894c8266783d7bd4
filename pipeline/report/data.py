"""Reads the contents of the page from the run folder alone, without changing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import LabelpipeError
from pipeline.report.timeline import Timeline, read_timeline, timeline_of
from pipeline.runner import latest_evaluation, status
from pipeline.store import (
    BatchBook,
    CorrectionSet,
    Ledger,
    Overview,
    RunDir,
    certificate_of,
    corrections_or_none,
    read_certificates,
    read_overview,
)
from pipeline.threads import in_daemon

#: The examples of each problem, and the rows of the sample: enough to see the pattern, on one page.
EXAMPLES, ROWS = 3, 12
#: The spans in which to count records if the run has not recorded its pace.
SPANS = 240


@dataclass(frozen=True, slots=True)
class ReportData:
    """The facts about a run. `state` is the result of `status`; `evaluation` is None if there is none."""

    folder: Path
    manifest: Mapping[str, Any]
    state: Mapping[str, Any]
    batches: Sequence[Mapping[str, Any]]
    overview: Overview
    pace: Timeline
    evaluation: Mapping[str, Any] | None
    certificates: Sequence[Mapping[str, Any]]
    corrected: CorrectionSet


async def load_report_data(folder: Path, summary: Mapping[str, Any] | None = None) -> ReportData:
    """Read the facts about a run. Raises SetupError if there is none.

    `summary` is that of a session that is just ending. Its counts are used, and the ledger is not counted again.
    """
    run_dir = RunDir(folder)
    state = await status(folder) if summary is None else _state_of(summary)
    manifest = run_dir.read_manifest() or {}
    pace = read_timeline(run_dir.throughput)
    overview = await in_daemon(
        lambda: read_overview(
            run_dir.ledger,
            codes=tuple(state["problems"]),
            examples=EXAMPLES,
            rows=ROWS,
            spans=0 if pace is not None else SPANS,
        )
    )
    return ReportData(
        folder=folder,
        manifest=manifest,
        state=state,
        batches=state["batches"] if summary is None else await _batches(run_dir),
        overview=overview,
        pace=pace or timeline_of(overview.finished, overview.span_s),
        evaluation=latest_evaluation(run_dir),
        corrected=await in_daemon(lambda: corrections_or_none(folder)),
        certificates=await in_daemon(lambda: _certificates(folder)),
    )


def _state_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `status` would return for a session with this summary."""
    same = ("simulated", "labelled", "rejected", "failed", "rows", "problems", "labels", "measured", "cost_usd",
            "saved_usd", "cache_write_usd", "lanes", "ended")  # fmt: skip
    values = {name: summary[name] for name in same}
    return {**values, "running": False, "tokens": summary["usage"], "live": None, "summary": summary}


async def _batches(run_dir: RunDir) -> list[Mapping[str, Any]]:
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        return [part.as_dict() for part in await BatchBook(ledger).parts() if not part.was_split]


def _certificates(folder: Path) -> list[Mapping[str, Any]]:
    """Return the run's certificates in their current state, without those that cannot be read."""
    try:
        certificates = [certificate_of(folder, one["column"]) for one in read_certificates(folder)]
    except LabelpipeError:
        return []
    return [one for one in certificates if one is not None]
