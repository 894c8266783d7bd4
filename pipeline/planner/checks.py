"""Finds everything that can be wrong with a run before it costs anything."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from pipeline.engine import most_of
from pipeline.errors import LabelpipeError, MissingExtraError, RenderError, SetupError
from pipeline.facts import Check
from pipeline.labelfields import LabelField
from pipeline.limits import BudgetReachedError, TokenBound
from pipeline.parts import (
    budget_of,
    gold_of,
    is_simulated,
    label_fields,
    panel_of,
    portable_files,
    price_for,
    read,
    settings_errors,
    sources_of,
    sql_of,
    task_of,
    validate_selection,
)
from pipeline.planner.input_scan import InputScan, check_media
from pipeline.planner.lanes import cache_checks, flex_checks
from pipeline.planner.server_check import UNSURE, api_checks, model_checks, server_checks
from pipeline.progress import show_count
from pipeline.readers import FILE_FORMATS, ReadProgress, Source, is_url, peek
from pipeline.records import Record
from pipeline.runner import ColumnCheck, check_columns, describe_overrides, find_changes, is_local, total_spend
from pipeline.settings import Settings
from pipeline.store import Ledger, RunDir, check_table
from pipeline.task import Task
from pipeline.telemetry import open_telemetry
from pipeline.threads import in_daemon
from pipeline.units import dollars, shorten_list

_T = TypeVar("_T")
#: Records to read from each input.
LOOKED_AT = 200
SHOWN_LABELS = 12
#: Inputs to read records from. A folder may have many thousands.
SOURCES_LOOKED_AT = 20


async def check(settings: Settings, *, online: bool = True, quiet: bool = True) -> list[Check]:
    """Check input, task, output, key, model, server, and limits. `online=False` sends nothing.

    If nothing has to be fixed, a server that is not OpenAI's gets at most three calls that show what it supports. Local
    files are read completely; a terminal shows the progress if that takes long, unless `quiet`.
    """
    results: list[Check] = []
    task = _try(results, "task", lambda: task_of(settings), lambda task: _describe_task(settings, task))
    results += [*_meanings(settings), *cache_checks(settings, task)] if task is not None else []
    sources = await _sources(settings, results)
    if sources is not None and task is not None:
        results += await _records(settings, sources, task, quiet=quiet)
    refused = settings_errors(settings)
    results += [_output(settings), _price(settings), _limits(settings, refused), *api_checks(settings)]
    if task is not None:
        results += [*_votes(settings, task), *await _gold(settings, task)]
    results += [Check(name, False, message) for name, message in refused.items() if name != "limits"] + flex_checks(
        settings
    )
    results += _ray(settings)
    if settings.output.sql is not None:
        results.append(await _table(settings, online=online))
    if sources is not None and task is not None:
        results += await _folder(settings, task, sources, budget="budget" not in refused)
    if overridden := describe_overrides(settings):
        results.append(Check("set by", None, overridden))
    results += await _telemetry(settings)
    models = await model_checks(settings, online=online)
    free = online and not any(one.ok is False or one.blocks for one in (*results, *models))
    served = await server_checks(settings) if free else []
    if any(one.card for one in served):  # it answers calls, so it need not describe its models
        models = [one for one in models if UNSURE not in one.detail]
    return [*results, *models, *served]


def _try(results: list[Check], name: str, make: Callable[[], _T], tell: Callable[[_T], str]) -> _T | None:
    try:
        made = make()
    except LabelpipeError as error:
        results.append(Check(name, False, str(error)))
        return None
    results.append(Check(name, True, tell(made)))
    return made


async def _sources(settings: Settings, results: list[Check]) -> list[Source] | None:
    """Return the inputs, found in a thread: an address that does not answer must not delay Ctrl-C."""
    try:
        sources = await in_daemon(partial(sources_of, settings))
    except LabelpipeError as error:
        results.append(Check("input", False, str(error)))
        return None
    results.append(Check("input", True, _describe_sources(sources)))
    return sources


def _describe_task(settings: Settings, task: Task) -> str:
    fields = label_fields(settings)
    columns = [f"{name} ({_holds(fields[name])})" if name in fields else name for name in task.columns]
    return f"the label columns are {', '.join(columns)}"


def _holds(field: LabelField) -> str:
    """Describe the values of a label field briefly."""
    if field.kind in ("one", "several"):
        return f"{'any of ' if field.kind == 'several' else ''}{shorten_list(field.values, SHOWN_LABELS)}"
    ends = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (field.low, field.high))
    return "text" if field.kind == "text" else " to ".join(ends)


def _meanings(settings: Settings) -> list[Check]:
    """Report labels without a meaning in fields where other labels have one."""
    bare = {name: field.without_meaning for name, field in label_fields(settings).items()}
    text = "; ".join(f"{name}: {shorten_list(values, SHOWN_LABELS)}" for name, values in bare.items() if values)
    return [Check("meanings", None, f"no meaning is given for some labels of a field: {text}")] if text else []


def _ray(settings: Settings) -> list[Check]:
    """Report which local files the run sends to the nodes of Ray, and what must be there."""
    if settings.scale.engine != "ray":
        return []
    if find_spec("ray") is None:
        return [Check("ray", False, str(MissingExtraError('scale.engine = "ray"', "ray")))]
    travel, run = portable_files(settings), settings.output.dir
    if not is_url(settings.scale.folder or ""):
        shared = [*travel.files, *(path for _, path in travel.stays), settings.scale.folder or run]
        text = f"nothing is sent to the nodes; each one needs, under the same name: {', '.join(dict.fromkeys(shared))}"
        return [Check("ray", None, f"{text}. A shared file system provides this")]
    text = f"sent to the nodes with the run: {', '.join(travel.files) or 'nothing'}"
    if not travel.stays:
        return [Check("ray", True, text)]
    stays = ", ".join(f"{path} ({key})" for key, path in travel.stays)
    return [Check("ray", None, f"{text}; needed on each node under the same name: {stays}")]


def _describe_sources(sources: list[Source]) -> str:
    names = ", ".join(source.name for source in sources[:3]) + (" ..." if len(sources) > 3 else "")
    counts = [source.read_count() for source in sources if source.format in FILE_FORMATS]
    if counts:
        return f"{sum(count or 0 for count in counts):,} files, each a record ({names})"
    if any(source.format == "sql" for source in sources):
        return f"rows of {names}"
    size = sum(source.size_bytes or 0 for source in sources)
    return f"{len(sources)} file{'s' * (len(sources) != 1)} ({names}), {size:,} bytes"


async def _records(settings: Settings, sources: list[Source], task: Task, *, quiet: bool) -> list[Check]:
    """Check all records of local files and the first ones of other inputs."""
    results = [Check("records", None, f"{source.name} cannot be examined before the run")
             for source in sources if source.single_pass]  # fmt: skip
    scan, reading = InputScan(settings, task), ReadProgress()
    try:
        await validate_selection(sources, settings)
        with show_count("looking at the records", quiet=quiet) as add:
            async for records in _read(
                settings, [source for source in sources if not source.single_pass], scan, reading
            ):
                scan.add(records)
                add(len(records))
        fields = await check_columns(settings, sources)
    except LabelpipeError as error:
        return [*results, Check("records", False, str(error))]
    results += [Check("reading", not doubtful, message) for message, doubtful in reading.notes_with_doubts()]
    results += [Check("left out", True, _describe_excluded(reading))] if reading.excluded_counts else []
    if not scan.records:
        none = reading.describe_empty([source.name for source in sources])
        return results if any(source.single_pass for source in sources) else [*results, Check("records", False, none)]
    results += scan.checks(frozenset(source.format for source in sources))
    results.append(_columns(settings, fields))
    if task.media_kinds:
        results.append(await check_media(settings, task, scan.first))
    return results


def _describe_excluded(reading: ReadProgress) -> str:
    counts = ", ".join(f"{count:,} records by input.{name}" for name, count in reading.excluded_counts.items())
    unclear = (
        f"; {reading.unclear_count:,} of them because a field is missing or null, or of another type"
        if reading.unclear_count
        else ""
    )
    return counts + unclear


def _columns(settings: Settings, fields: ColumnCheck) -> Check:
    if fields.message:
        return Check("columns", False, fields.message)
    columns = settings.output.columns
    return Check("columns", True, ", ".join(columns) if columns else "all fields of the input are copied")


async def _read(
    settings: Settings, sources: list[Source], scan: InputScan, reading: ReadProgress
) -> AsyncIterator[list[Record]]:
    if all(is_local(source) for source in sources):
        async with aclosing(read(sources, settings, progress=reading)) as batches:
            async for batch in batches:
                yield batch
        scan.whole = True
        return
    for place, source in enumerate(sources):
        # Each input is opened, as a run does before it begins; only the records of the first ones are read.
        most = LOOKED_AT if place < SOURCES_LOOKED_AT else 1
        records = await peek(source, n=most, key=settings.input.key, progress=reading)
        yield records if place < SOURCES_LOOKED_AT else []


def _output(settings: Settings) -> Check:
    folder = Path(settings.output.dir)
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.exists() and not nearest.is_dir():
        return Check("output", False, f"{folder}: {nearest} is a file, not a folder; set output.dir")
    if not os.access(nearest, os.W_OK):
        return Check("output", False, f"{folder}: {nearest} may not be written; set output.dir")
    if "parquet" in settings.output.formats and find_spec("pyarrow") is None:
        return Check("output", False, "output.formats has parquet: pip install 'labelpipe[parquet]'")
    is_run = RunDir(folder).ledger.exists()
    return Check("output", True, f"{folder}{' (continues the run there)' if is_run else ''}")


async def _folder(settings: Settings, task: Task, sources: list[Source], *, budget: bool) -> list[Check]:
    """Check the run folder: an active run in it, a run with other settings, or a budget that is used up."""
    run_dir = RunDir(Path(settings.output.dir))
    results: list[Check] = []
    if run_dir.is_running():
        results.append(
            Check(
                "in use", None, f"a run is in progress in {run_dir.path}; another one has to wait until it ends", True
            )
        )
    try:
        if budget:
            results += await _budget(settings, task, sources, run_dir)
        if run_dir.ledger.exists():
            async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
                results += await _changes(settings, task, sources, run_dir, ledger)
    except LabelpipeError as error:
        results.append(Check("resume", False, str(error)))
    return results


async def _changes(
    settings: Settings, task: Task, sources: list[Source], run_dir: RunDir, ledger: Ledger
) -> list[Check]:
    """Check whether `run` would refuse because the folder's run has other settings. Writes nothing."""
    manifest = run_dir.read_manifest()
    if manifest is None:
        return []
    changes = await find_changes(settings, task, sources, manifest, ledger)
    if not changes:
        return [Check("resume", True, f"{changes.done:,} records there have an outcome and are not asked again")]
    return [Check("resume", None, f"`run` would stop and ask. {changes.describe(run_dir)}", True)]


async def _budget(settings: Settings, task: Task, sources: list[Source], run_dir: RunDir) -> list[Check]:
    """Check whether the budget allows one more call, by the worst case of the first record."""
    spent_usd, spent_tokens = 0.0, 0
    if run_dir.ledger.exists():
        async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
            spent_usd, spent_tokens = await total_spend(ledger, price_for(settings))
    budget = budget_of(settings, spent_usd=spent_usd, spent_tokens=spent_tokens)
    if budget is None:
        return []
    most = await _first_most(settings, task, sources)
    try:
        budget.reserve(most.prompt, most.output)
    except BudgetReachedError as error:
        # The spending was within an earlier cap. The user may raise the cap, and the config has no mistake.
        spent = bool(spent_tokens)
        return [Check("budget", None if spent else False, f"no call is let through: {error}", spent)]
    amount = dollars(spent_usd) if settings.limits.budget_usd is not None else f"{spent_tokens:,} tokens"
    return [Check("budget", True, f"{amount} spent so far; even the most expensive call fits")]


async def _first_most(settings: Settings, task: Task, sources: list[Source]) -> TokenBound:
    """Return the most that the first record's call can use; one token each if no record can be read."""
    config = settings.input
    for source in sources[:1]:
        records = [] if source.single_pass else await peek(source, n=LOOKED_AT, key=config.key)
        for record in records:
            with suppress(RenderError):
                if record.problem is None:
                    return most_of(task.render(record))
    return TokenBound(1, 1)


async def _table(settings: Settings, *, online: bool) -> Check:
    """Check whether the database table could be ours; without `online`, only whether its database is named."""
    try:
        options = sql_of(settings)
        if options is not None and online:
            await asyncio.to_thread(check_table, options, RunDir(Path(settings.output.dir)).ledger)
    except LabelpipeError as error:
        return Check("table", False, str(error))
    detail = "can be made, or is this run's" if online else "not looked for"
    return Check("table", True, f"{options.table if options else ''}: {detail}")


def _price(settings: Settings) -> Check:
    if is_simulated(settings):
        return Check("price", True, "the built-in endpoint costs nothing; sums are what the model would cost")
    price = price_for(settings)
    if price is None:
        return Check("price", None, f"unknown for {settings.model.name}; set model.price to see what the run costs")
    return Check("price", True, f"${price.input:g} in, ${price.output:g} out per million tokens ({price.origin})")


def _limits(settings: Settings, refused: Mapping[str, str]) -> Check:
    if "limits" in refused:
        return Check("limits", False, refused["limits"])
    limits = settings.limits
    texts = [
        f"{value if isinstance(value, str) else f'{value:,}'} {what}"
        for value, what in (
            (limits.concurrency, "in flight"),
            (limits.requests_per_minute, "requests a minute"),
            (limits.tokens_per_minute, "tokens a minute"),
            (limits.requests_per_day, "requests a day"),
        )
        if value is not None
    ]
    return Check("limits", True, ", ".join(texts))


def _votes(settings: Settings, task: Task) -> list[Check]:
    """Check whether votes can differ: equal requests with a fixed seed or no temperature give the same answer again."""
    quality, parameters = settings.quality, settings.model.parameters
    if quality.size == 1:
        return []
    try:
        panel_of(settings, task)
    except SetupError as error:
        return [Check("votes", False, str(error))]
    text = f"{quality.fewest} to {quality.size} a record"
    fixed = [f"{key} = {parameters[key]}" for key in ("temperature", "seed") if key in parameters]
    if quality.voters or not fixed or (parameters.get("temperature", 0) and "seed" not in parameters):
        return [Check("votes", True, text)]
    message = f"{text}, and model.parameters has {fixed[0]}, which makes the answers to one request alike: remove it"
    return [Check("votes", None, message)]


async def _gold(settings: Settings, task: Task) -> list[Check]:
    """Check the gold of [quality], read as in the run."""
    try:
        gold = await gold_of(settings, task)
    except SetupError as error:
        return [Check("gold", False, str(error))]
    if gold is None:
        return []
    how = f"one is asked after each {settings.quality.every:,}" if gold.mixed else "compared where the input has them"
    return [Check("gold", True, f"{len(gold.right):,} records with the right {gold.field.name}, {how}")]


async def _telemetry(settings: Settings) -> list[Check]:
    """Check whether telemetry can be opened. Nothing is measured, so nothing is sent."""
    try:
        telemetry = open_telemetry(settings.telemetry.enabled, model=settings.model.name, server=None)
    except SetupError as error:
        return [Check("telemetry", False, str(error))]
    if telemetry is None:
        return []
    await telemetry.close()
    return [Check("telemetry", True, "can be opened")]
