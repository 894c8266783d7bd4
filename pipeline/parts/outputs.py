"""Builds from [output] and [notify] the files, the table, their layout, and whom to notify."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine import VOTE_COLUMNS
from pipeline.errors import ConfigError
from pipeline.parts.server import is_simulated
from pipeline.records import Outcome, Problem
from pipeline.settings import Settings
from pipeline.store import REVIEWED, Layout, Ledger, MovedFile, RunDir, Sinks, SqlPlace, SqlTarget, claim_table
from pipeline.task import Task

#: Marks every row of simulated labels, so that nobody trains on them.
COLUMN = "simulated"
_WORD = " (simulated)"


async def open_sinks(
    settings: Settings, task: Task, run_dir: RunDir, ledger: Ledger, moved: Sequence[MovedFile]
) -> Sinks:
    """Open the output files, and claim the table for this run, if there is one. Raises StoreError, SetupError.

    `moved` are files that were moved aside because they were not the run's.
    """

    await _claim_table(settings, run_dir, ledger)
    return await Sinks.start(run_dir, ledger, layout_of(settings, task), moved=moved)


def layout_of(settings: Settings, task: Task) -> Layout:
    """Return the layout of the output files. Raises ConfigError for a duplicate column."""
    columns = settings.output.columns
    if settings.output.reviewed and REVIEWED in (*task.columns, *task.extra_columns):
        raise ConfigError(
            f"output.reviewed adds a column {REVIEWED!r}, which is a label of the task: rename the label, or take the "
            "key out"
        )
    votes = VOTE_COLUMNS if settings.quality.size > 1 else ()
    extra = (*task.extra_columns, *votes, *((COLUMN,) if is_simulated(settings) else ()))
    return Layout(
        labels=(*task.columns, *extra),
        columns=tuple(columns or ()),
        fixed=columns is not None,
        formats=tuple(settings.output.formats),
        order=settings.output.order,
        escape_formulas=settings.output.escape_formulas,
        reviewed=settings.output.reviewed,
    )


def outputs_of(settings: Settings, run_dir: RunDir) -> dict[str, str]:
    """Return the files that a person will look for."""
    files = [kind for kind in settings.output.formats if kind != "sql"]
    labels = {"labels": str(run_dir.labels(files[0]))} if files else {}
    return {**labels, "failed": str(run_dir.failed), "log": str(run_dir.log)}


def sql_of(settings: Settings) -> SqlTarget | None:
    """Return where the table of labels is, if there is one. Raises ConfigError if its URL is missing.

    A shard has none: its rows go into that of the whole run.
    """
    options, url = settings.output.sql, settings.sql_url()
    if options is None or settings.input.shard is not None:
        return None
    if url is None:
        raise ConfigError(
            f"output.sql: {options.url_env} is not set. Put {options.url_env}=... into the environment or into .env, "
            "or set output.sql.url"
        )
    return SqlTarget(url.get_secret_value(), options.table)


def _place_of(settings: Settings) -> SqlPlace | None:
    """Return the same without possible secrets, for the ledger."""
    options = settings.output.sql
    if options is None:
        return None
    return SqlPlace(options.table, None if options.url is None else options.url.get_secret_value(), options.url_env)


async def _claim_table(settings: Settings, run_dir: RunDir, ledger: Ledger) -> None:
    """Create the table of [output.sql], or check that it is this run's, before any cost. Raises SetupError."""
    target, place = sql_of(settings), _place_of(settings)
    if target is None or place is None:
        return
    await ledger.run_id()
    await asyncio.to_thread(claim_table, target, run_dir.ledger)
    # So that `verify` and `export` find the table from the run folder alone.
    if await ledger.meta_get("sql") != place.to_text():
        await ledger.meta_set("sql", place.to_text())


def mark_simulated(outcome: Outcome) -> Outcome:
    """Return the outcome with a column, or a word in its message, that marks it as simulated."""
    if outcome.problem is not None:
        problem = Problem(outcome.problem.code, f"{outcome.problem.message}{_WORD}")
        return replace(outcome, problem=problem)
    return replace(outcome, label={**(outcome.label or {}), COLUMN: True})


def is_marked_simulated(outcome: Outcome) -> bool:
    """Whether the outcome is marked as simulated."""
    if outcome.problem is not None:
        return outcome.problem.message.endswith(_WORD)
    return COLUMN in (outcome.label or {})


def notify_targets(settings: Settings) -> tuple[str | None, str | None, frozenset[str]]:
    """Return the address, the command, and the kinds of events."""
    notify = settings.notify
    url = None if notify.url is None else notify.url.get_secret_value()
    command = None if notify.command is None else notify.command.get_secret_value()
    return url, command, frozenset(notify.on)
