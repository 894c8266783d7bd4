"""Looking without touching: a preview of a few records, the status of a run, the proof of its files."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine import Asker, renamed
from pipeline.errors import InputError, LabelpipeError, RenderError, SetupError
from pipeline.readers import read_records, resolve_sources
from pipeline.records import JSON, Outcome, Record, Status
from pipeline.results import Report
from pipeline.results import verify as verify_files
from pipeline.runner.keys import repeated_in
from pipeline.runner.live import is_running, read_live
from pipeline.runner.parts import admission_of, is_simulated, open_provider, price_for, rules_of, sources_of, task_of
from pipeline.settings import Settings
from pipeline.stats import Stats
from pipeline.store import Ledger, RunDir
from pipeline.task import Task


class _NoCallback:
    """The task without its callback: a preview must not write anywhere."""

    def __init__(self, task: Task) -> None:
        self.read, self.repair = task.read, task.repair

    async def call_back(self, label: Mapping[str, JSON], record: Record) -> Mapping[str, JSON]:
        """No columns."""
        return {}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview came to. `columns` are the label columns; `stopped` says why it ended early, else None."""

    columns: tuple[str, ...]
    outcomes: list[Outcome]
    cost_usd: float | None
    simulated: bool
    stopped: str | None = None


async def preview(settings: Settings, n: int = 5) -> Preview:
    """Label the first `n` records and write nothing. The callback, if there is one, is not called."""
    task, price = task_of(settings), price_for(settings)
    records = await _first(settings, n)
    outcomes: list[Outcome] = []
    stopped = None
    async with AsyncExitStack() as stack:
        provider = await open_provider(settings, stack)
        rules = rules_of(settings)
        admission = admission_of(settings)
        asker = Asker(provider, _NoCallback(task), admission, Stats(time.monotonic), rules=rules, price=price)
        for record in records:
            try:
                outcomes.append(await asker.ask(task.render(record)))
            except RenderError as error:
                raise InputError(f"{record.source}:{record.line}: {error}") from error
            except LabelpipeError as error:
                stopped = str(error)
                break
    costs = [outcome.cost_usd for outcome in outcomes]
    cost = None if None in costs else sum(cost for cost in costs if cost is not None)
    simulated = is_simulated(settings) or provider.simulated is True
    return Preview(task.columns, outcomes, cost, simulated, stopped)


async def _first(settings: Settings, n: int) -> list[Record]:
    """The first `n` records that can be read."""
    found: list[Record] = []
    batches = read_records(sources_of(settings), key=settings.input.key, encoding=settings.input.encoding, batch=n)
    async with aclosing(batches):
        async for batch in batches:
            found += [record for record in batch if record.problem is None]
            if len(found) >= n:
                break
    return found[:n]


async def status(folder: str | Path) -> dict[str, Any]:
    """A run as it stands, as plain values. Raises SetupError where there is no run."""
    run_dir = RunDir(Path(folder))
    manifest = run_dir.read_manifest()
    if manifest is None:
        raise SetupError(f"{folder}: there is no run here (no manifest.json)")
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        counts = await ledger.count_by_status()
        problems = await ledger.problem_counts()
        totals = await ledger.totals()
    running = is_running(run_dir)
    live = read_live(run_dir)
    return {
        "run_dir": str(folder),
        "running": running,
        "simulated": bool(manifest.get("simulated")),
        "labelled": counts[Status.LABELLED],
        "rejected": counts[Status.REJECTED],
        "failed": counts[Status.FAILED],
        "problems": problems,
        "tokens": {"prompt": totals.usage.prompt, "completion": totals.usage.completion, "cached": totals.usage.cached},
        "cost_usd": totals.cost_usd if not totals.unpriced else None,
        "live": live if running else None,
        "summary": None if running else run_dir.read_summary(),
    }


async def verify(folder: str | Path, *, read_input: bool = True) -> Report:
    """Prove a run from its files; with `read_input` the input is read again and every record accounted for."""
    run_dir = RunDir(Path(folder))
    manifest = run_dir.read_manifest()
    if manifest is None:
        raise SetupError(f"{folder}: there is no run here (no manifest.json)")
    keys = _keys_again(run_dir, manifest) if read_input and _can_be_read(manifest) else None
    return await verify_files(run_dir, input_keys=keys)


def _can_be_read(manifest: Mapping[str, Any]) -> bool:
    paths = manifest.get("reading", {}).get("paths")
    return bool(paths) and "-" not in paths


async def _keys_again(run_dir: RunDir, manifest: Mapping[str, Any]) -> AsyncGenerator[list[str], None]:
    """The key of every record of the input, as the run names them."""
    reading = manifest["reading"]
    sources = resolve_sources(reading["paths"], format=reading["format"], base=run_dir.path / reading["base"])
    batches = read_records(sources, key=reading["key"], encoding=reading["encoding"], limit=reading["limit"])
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger, aclosing(batches):
        async for batch in batches:
            if reading["key"] is not None:
                batch = renamed(batch, await repeated_in(ledger, batch))  # noqa: PLW2901
            yield [record.key for record in batch]
