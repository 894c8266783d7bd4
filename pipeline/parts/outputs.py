"""Where the rows of a run go: its files, and a table in a database."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pipeline.parts.build import is_simulated, sql_of
from pipeline.runlog import tell
from pipeline.settings import Settings
from pipeline.store import Layout, Ledger, MovedAside, RunDir, Sinks, look_at_table
from pipeline.task import Task


async def open_sinks(
    settings: Settings, task: Task, run_dir: RunDir, ledger: Ledger, moved: Sequence[MovedAside] | None = None
) -> Sinks:
    """The files of rows, and the table where there is one. Raises StoreError, SetupError.

    `moved` are files that were moved aside since they were not the run's; None where nobody has looked yet.
    """

    def lags(event: str, text: str) -> None:
        tell(event, level=logging.WARNING, reason=text)

    layout = layout_of(settings, task)
    return await Sinks.start(run_dir, ledger, layout, sql=sql_of(settings), tell=lags, moved=moved)


def layout_of(settings: Settings, task: Task) -> Layout:
    """How the files of rows look."""
    columns = settings.output.columns
    extra = (*task.extra_columns, *(("simulated",) if is_simulated(settings) else ()))
    return Layout(
        labels=(*task.columns, *extra),
        columns=tuple(columns or ()),
        fixed=columns is not None,
        formats=tuple(settings.output.formats),
        order=settings.output.order,
        escape_formulas=settings.output.escape_formulas,
    )


async def outputs_of(settings: Settings, run_dir: RunDir, ledger: Ledger) -> dict[str, str]:
    """The files a person will look for, and the table with its rows."""
    files = [kind for kind in settings.output.formats if kind != "sql"]
    table = await _table_text(settings, ledger)
    labels = {"labels": str(run_dir.labels(files[0]))} if files else {}
    tables = {"table" if files else "labels": table if files else f"table {table}"} if table else {}
    return {**labels, **tables, "failed": str(run_dir.failed), "log": str(run_dir.log)}


async def _table_text(settings: Settings, ledger: Ledger) -> str:
    """The name of the table in a database, and how many rows are in it; empty where there is none."""
    if settings.output.sql is None or (options := sql_of(settings)) is None:
        return ""
    found = await look_at_table(ledger, lambda place: options.url)
    rows = "" if found is None or found.rows is None else f", {found.rows:,} rows"
    return f"{options.table}{rows}"
