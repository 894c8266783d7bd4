"""The last of a session: its table, the report by whoever hands in how, and the summary in the run folder."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from pipeline.errors import LabelpipeError
from pipeline.runlog import log_event
from pipeline.runner.measured import measured_of
from pipeline.runner.sql_export import with_table
from pipeline.settings import Settings
from pipeline.stats import RunSummary
from pipeline.store import RunDir

#: Makes a file of a summary, and gives what it is and where. The summary names it among its files.
After: TypeAlias = Callable[[RunSummary], Awaitable[tuple[str, str]]]


async def finished(summary: RunSummary, settings: Settings, run_dir: RunDir, after: After | None) -> RunSummary:
    """The summary with what its labels were measured at, the table of [output.sql], and the file that `after` makes.

    It is written into the run folder.
    """
    summary = replace(await with_table(summary, settings, run_dir), measured=measured_of(run_dir))
    summary = await _with_file(after, summary)
    run_dir.write_summary(summary.as_dict())
    return summary


async def _with_file(after: After | None, summary: RunSummary) -> RunSummary:
    """The summary with the file that was made of it; with a note where that failed. The run has ended as it has."""
    if after is None:
        return summary
    try:
        name, path = await after(summary)
    except Exception as error:
        log_event("the report cannot be written", level=logging.ERROR, error=repr(error))
        why = str(error) if isinstance(error, LabelpipeError) else repr(error)
        note = f"there is no report: {why}. Try again with: labelpipe report {summary.run_dir}"
        return replace(summary, notes=[*summary.notes, " ".join(note.split())])
    return replace(summary, files={**summary.files, name: path})
