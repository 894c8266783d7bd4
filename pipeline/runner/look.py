"""Looking without touching: a preview of a few records, the status of a run, the proof of its files."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.engine import Asker, Responder, is_hopeless, renamed
from pipeline.errors import InputError, LabelpipeError, RenderError, SetupError
from pipeline.limits import Price
from pipeline.readers import Given
from pipeline.records import Call, Labelled, Outcome, Record, Said, Status
from pipeline.results import Check as Checked
from pipeline.results import Report
from pipeline.results import verify as verify_files
from pipeline.runner.advice import advise
from pipeline.runner.inputs import can_be_read_again, read, read_again, sources_of
from pipeline.runner.keys import repeated_in
from pipeline.runner.lastsession import ending_of
from pipeline.runner.live import read_live
from pipeline.runner.media import media_for
from pipeline.runner.paid import paid_so_far
from pipeline.runner.parts import admission_of, is_simulated, open_provider, price_for, rules_of, task_of
from pipeline.settings import Settings, variable
from pipeline.stats import Stats
from pipeline.store import Ledger, RunDir, SqlPlace, TableLook, look_at_table
from pipeline.targets import find_run
from pipeline.task import Task


class _NoCallback:
    """The task without its callbacks, and without the turns that follow from them: a preview must write nowhere."""

    max_turns = 1
    has_callback = False

    def __init__(self, task: Task) -> None:
        self.calls, self.repair, self.next_turn = task.calls, task.repair, task.next_turn
        self._task = task

    def labelled(self, said: Sequence[Said], reply: str | None, record: Record) -> Labelled:
        """The row or rows, whatever the model would have said at the end."""
        return self._task.labelled(said, reply or "", record)

    async def respond(self, said: Said, record: Record, call: Call) -> Said:
        """No columns."""
        return said


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview came to. `columns` are the label columns; `stopped` says why it ended early, else None.

    `hopeless`: it was stopped by what has to be mended first, and no record was answered.
    """

    columns: tuple[str, ...]
    outcomes: list[Outcome]
    cost_usd: float | None
    simulated: bool
    stopped: str | None = None
    hopeless: bool = False


async def preview(settings: Settings, n: int = 5, *, records: Given | None = None) -> Preview:
    """Label the first `n` records and write nothing. The callback, if there is one, is not called.

    `records` are taken in place of the config's input, as `run` takes them.
    """
    task, price = task_of(settings), price_for(settings)
    first = await _first(settings, n, records)
    outcomes: list[Outcome] = []
    stopped = None
    async with AsyncExitStack() as stack:
        provider = await open_provider(settings, stack)
        rules = rules_of(settings)
        admission = admission_of(settings)
        responder = Responder(_NoCallback(task), admission.gate)
        prepare = await media_for(settings, task, stack)
        stats, ping = Stats(time.monotonic), provider.ping
        asker = Asker(provider, responder, admission, stats, rules=rules, price=price, prepare=prepare, ping=ping)
        stack.callback(asker.close)
        for record in first:
            try:
                outcomes.append(await asker.ask(task.render(record)))
            except RenderError as error:
                raise InputError(f"{record.source}:{record.line}: {error}") from error
            except LabelpipeError as error:
                advice = advise(settings, [str(error)])
                stopped = f"{error}\n{advice}" if advice else str(error)
                break
    costs = [outcome.cost_usd for outcome in outcomes]
    cost = None if None in costs else sum(cost for cost in costs if cost is not None)
    simulated = is_simulated(settings) or provider.simulated is True
    hopeless = is_hopeless(admission.gate.stopped) and not outcomes
    return Preview(task.columns, outcomes, cost, simulated, stopped, hopeless)


async def _first(settings: Settings, n: int, records: Given | None) -> list[Record]:
    """The first `n` records that can be read."""
    found: list[Record] = []
    sources = sources_of(settings, records)
    batches = read(sources, settings.input, batch=n)
    async with aclosing(batches):
        async for batch in batches:
            found += [record for record in batch if record.problem is None]
            if len(found) >= n:
                break
    return found[:n]


async def status(folder: str | Path) -> dict[str, Any]:
    """A run as it stands, as plain values; `folder` may be its config too. Raises SetupError where there is no run."""
    run_dir = RunDir(find_run(folder))
    manifest = run_dir.read_manifest()
    if manifest is None:
        raise SetupError(f"{folder}: there is no run here (no manifest.json)")
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        counts, rows = await ledger.count_by_status(), await ledger.row_counts()
        problems = await ledger.problem_counts()
        live = read_live(run_dir)
        price = _price_in(live)
        totals = await paid_so_far(ledger, price)
        here = run_dir.path / manifest["reading"]["base"]
        table = await look_at_table(ledger, lambda place: _url_of(place, here))
    running = run_dir.is_running()
    usage = totals.usage
    return {
        "run_dir": str(run_dir.path),
        "running": running,
        "simulated": bool(manifest.get("simulated")),
        "labelled": counts[Status.LABELLED],
        "rejected": counts[Status.REJECTED],
        "failed": counts[Status.FAILED],
        "rows": None if rows is None else rows.rows,
        "without_row": None if rows is None else rows.without,
        "problems": problems,
        "tokens": {
            "prompt": usage.prompt,
            "completion": usage.completion,
            "cached": usage.cached,
            "cache_write": usage.cache_write,
        },
        "cost_usd": totals.cost_usd if not totals.unpriced else None,
        "saved_usd": None if price is None else price.saved_usd(usage),
        "cache_write_usd": None if price is None else price.cache_write_usd(usage),
        "table": None if table is None else _table_facts(table),
        **(_at_work(live) if running else ending_of(run_dir, live, totals, sum(counts.values()))),
    }


def _at_work(live: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a session at work says; it has no ending yet."""
    return {"ended": None, "left": None, "next_step": "", "last_alive_at": None, "live": live, "summary": None}


def _table_facts(table: TableLook) -> dict[str, Any]:
    return {"name": table.name, "rows": table.rows, "behind": table.behind, "trouble": table.trouble or None}


def _price_in(live: Mapping[str, Any] | None) -> Price | None:
    """The price that the last session went by; it is in live.json also after its end, or a kill."""
    price = (live or {}).get("price")
    return None if price is None else Price(**price)


async def verify(folder: str | Path, *, read_input: bool = True) -> Report:
    """Prove a run from its files; with `read_input` the input is read again and every record accounted for."""
    run_dir = RunDir(find_run(folder))
    manifest = run_dir.read_manifest()
    if manifest is None:
        raise SetupError(f"{folder}: there is no run here (no manifest.json)")
    again = can_be_read_again(manifest)
    records = _records_again(run_dir, manifest) if read_input and again else None
    here = run_dir.path / manifest["reading"]["base"]
    report = await verify_files(
        run_dir,
        records=records,
        by_fields=manifest["reading"]["format"] != "files",
        find_url=lambda place: _url_of(place, here),
    )
    if not read_input or again:
        return report
    told = "not counted: the input came from stdin or from a program, and cannot be read again."
    return replace(report, checks=(*report.checks, Checked("rows in", True, told)))


def _url_of(place: SqlPlace, here: Path) -> str | None:
    """The URL of the run's database; an SQLite file is looked for from where the run was started."""
    if (url := place.url) is None and place.url_env is not None and (found := variable(place.url_env)) is not None:
        url = found[0].get_secret_value()
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|\w:|file:)(.+)", url or "")
    return f"{relative[1]}{(here / relative[2]).resolve()}" if relative else url


async def count_pending(run_dir: RunDir) -> int | None:
    """Records of the run's input without an outcome; None where the input cannot be read again (stdin, moved away)."""
    manifest = run_dir.read_manifest()
    if manifest is None or not can_be_read_again(manifest):
        return None
    pending = 0
    try:
        async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
            async for records in _records_again(run_dir, manifest):
                pending += len(records) - len(await ledger.known([record.key for record in records]))
    except SetupError:
        return None
    return pending


async def _records_again(run_dir: RunDir, manifest: Mapping[str, Any]) -> AsyncGenerator[list[Record], None]:
    """The records of the input, as the run names them."""
    reading = manifest["reading"]
    batches = read_again(run_dir, reading)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger, aclosing(batches):
        async for batch in batches:
            if reading["key"] is not None:
                batch = renamed(batch, await repeated_in(ledger, batch))  # noqa: PLW2901
            yield batch
