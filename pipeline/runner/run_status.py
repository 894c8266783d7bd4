"""Looking without touching: the status of a run, the proof of its files."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.engine import renamed
from pipeline.errors import SetupError
from pipeline.limits import Price
from pipeline.parts import can_be_read_again, is_elsewhere, read_again
from pipeline.records import Record, Status, is_left_out
from pipeline.results import Check as Checked
from pipeline.results import Report
from pipeline.results import verify as verify_files
from pipeline.runner.costs import cache_money, paid_so_far
from pipeline.runner.lanes import lanes_used
from pipeline.runner.lastsession import ending_of
from pipeline.runner.lookshards import count_outcomes, together, with_shards
from pipeline.runner.lookups import repeated_in
from pipeline.runner.measured import measured_of
from pipeline.runner.session_view import read_live
from pipeline.runner.sql_export import url_of
from pipeline.store import BatchBook, Ledger, RunDir, SqlPlace
from pipeline.targets import run_and_manifest


async def status(folder: str | Path) -> dict[str, Any]:
    """A run as it stands, as plain values; `folder` may be its config too. Raises SetupError where there is no run."""
    run_dir, manifest = run_and_manifest(folder)
    if not (shards := run_dir.shards()):
        return await _status(run_dir, manifest, run_dir.ledger)
    before = await _status(run_dir, manifest, run_dir.before_shards)
    heard = (read_live(RunDir(run_dir.path / "shards")) or {}).get("heard_at", {})
    found = [await _status(one, one.read_manifest() or {}, one.ledger) for one in shards]
    return with_shards(before, found, heard, time.time())


async def _status(run_dir: RunDir, manifest: Mapping[str, Any], path: Path) -> dict[str, Any]:
    async with await Ledger.open(path, read_only=True) as ledger:
        counts, rows = await ledger.count_by_status(), await ledger.row_counts()
        problems = await ledger.problem_counts()
        by_people = await ledger.count_human_labels()
        labels = await ledger.label_counts(manifest.get("label_columns") or ())
        live = read_live(run_dir)
        price = _price_in(live)
        totals = await paid_so_far(ledger, price)
        cached, lanes = await cache_money(ledger, totals, price), await lanes_used(ledger)
        batches = [part.as_dict() for part in await BatchBook(ledger).parts() if not part.was_split]
    running = run_dir.is_running()
    usage = totals.usage
    return {
        "run_dir": str(run_dir.path),
        "running": running,
        "simulated": bool(manifest.get("simulated")),
        "labelled": counts[Status.LABELLED],
        "by_people": by_people,
        "rejected": counts[Status.REJECTED],
        "failed": counts[Status.FAILED],
        "rows": None if rows is None else rows.rows,
        "without_row": None if rows is None else rows.without,
        "problems": problems,
        "labels": labels,
        "measured": measured_of(run_dir),
        "tokens": {
            "prompt": usage.prompt,
            "completion": usage.completion,
            "cached": usage.cached,
            "cache_write": usage.cache_write,
        },
        "cost_usd": None if totals.unpriced and (price is None or not totals.cost_usd) else totals.cost_usd,
        "untold": 0 if price is None else totals.unpriced,
        "batches": batches,
        "lanes": lanes,
        **cached,
        **(_at_work(live) if running else ending_of(run_dir, live, totals, sum(counts.values()))),
    }


def _at_work(live: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a session at work says; it has no ending yet."""
    return {"ended": None, "left": None, "next_step": "", "last_alive_at": None, "live": live, "summary": None}


def _price_in(live: Mapping[str, Any] | None) -> Price | None:
    """The price that the last session went by; it is in live.json also after its end, or a kill."""
    price = (live or {}).get("price")
    return None if price is None else Price(**price)


async def verify(folder: str | Path, *, read_input: bool = True, remote: bool = False) -> Report:
    """Prove a run from its files; with `read_input` the input is read again and every record accounted for.

    Addresses and databases that the run folder names are read with `remote` only: it may be somebody else's.
    """
    run_dir, manifest = run_and_manifest(folder)
    if shards := run_dir.shards():
        reports = {one.path.name: await verify(one.path, read_input=read_input, remote=remote) for one in shards}
        return together(run_dir, reports, (await count_outcomes([run_dir.before_shards])).total())
    untold = _not_counted(manifest, remote=remote)
    records = _records_again(run_dir, manifest, left_out=True) if read_input and not untold else None
    report = await verify_files(
        run_dir,
        records=records,
        by_fields=manifest["reading"]["format"] != "files",
        find_url=_finder(run_dir, manifest, remote=remote),
    )
    if not read_input or not untold:
        return report
    return replace(report, checks=(*report.checks, Checked("rows in", True, untold)))


def _not_counted(manifest: Mapping[str, Any], *, remote: bool) -> str:
    """Why the input is not read again; empty where it is."""
    if not can_be_read_again(manifest):
        return "not counted: the input came from stdin or from a program, and cannot be read again."
    if is_elsewhere(manifest) and not remote:
        return "not counted: the input is an address or a database; verify --remote reads it again."
    return ""


def _finder(run_dir: RunDir, manifest: Mapping[str, Any], *, remote: bool) -> Callable[[SqlPlace], str | None]:
    """What gives the URL of a run's table; None for one that only `remote` leads to."""
    here = run_dir.path / manifest["reading"]["base"]
    return lambda place: url_of(place, here) if remote or _is_here(place) else None


def _is_here(place: SqlPlace) -> bool:
    """Whether a run's table is in a file, or where a variable of the user's says."""
    return place.url is None or place.url.startswith("sqlite")


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


async def _records_again(
    run_dir: RunDir, manifest: Mapping[str, Any], *, left_out: bool = False
) -> AsyncGenerator[list[Record], None]:
    """The records of the input, as the run names them; with `left_out` those that it does not take too."""
    reading = manifest["reading"]
    batches = read_again(run_dir, reading, left_out=left_out)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger, aclosing(batches):
        async for batch in batches:
            if reading["key"] is not None:
                # A record that is left out takes no key from another one.
                left = [record for record in batch if is_left_out(record)]
                taken = [record for record in batch if not is_left_out(record)]
                batch = [*renamed(taken, await repeated_in(ledger, taken)), *left]  # noqa: PLW2901
            yield batch
