"""Verifies a run: its files, and its input read again."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.engine import renamed
from pipeline.errors import SetupError
from pipeline.parts import can_be_read_again, is_elsewhere, read_again
from pipeline.records import Record, is_left_out
from pipeline.results import Check as Checked
from pipeline.results import Report
from pipeline.results import verify as verify_files
from pipeline.runner.lookups import find_repeated
from pipeline.runner.run_status import add_counts, count_outcomes
from pipeline.runner.sql_export import url_of
from pipeline.store import Ledger, RunDir, SqlPlace
from pipeline.targets import run_and_manifest


async def verify(folder: str | Path, *, read_input: bool = True, remote: bool = False) -> Report:
    """Verify a run from its files. With `read_input`, read the input again and account for every record.

    Addresses and databases in the run folder are read only with `remote`, because it may be somebody else's.
    """
    run_dir, manifest = run_and_manifest(folder)
    if shards := run_dir.shards():
        reports = {one.path.name: await verify(one.path, read_input=read_input, remote=remote) for one in shards}
        return _combine(run_dir, reports, (await count_outcomes([run_dir.before_shards])).total())
    untold = _not_counted(manifest, remote=remote)
    records = _records_again(run_dir, manifest, left_out=True) if read_input and not untold else None
    here = run_dir.path / manifest["reading"]["base"]
    report = await verify_files(
        run_dir,
        records=records,
        by_fields=manifest["reading"]["format"] != "files",
        find_url=lambda place: url_of(place, here) if remote or _is_local_table(place) else None,
    )
    if not read_input or not untold:
        return report
    return replace(report, checks=(*report.checks, Checked("rows in", True, untold)))


def _not_counted(manifest: Mapping[str, Any], *, remote: bool) -> str:
    """Return why the input is not read again; empty if it is."""
    if not can_be_read_again(manifest):
        return "not counted: the input came from stdin or from a program, and cannot be read again."
    if is_elsewhere(manifest) and not remote:
        return "not counted: the input is an address or a database; verify --remote reads it again."
    return ""


def _is_local_table(place: SqlPlace) -> bool:
    """Whether a run's table is in a file, or where the user's own variable says."""
    return place.url is None or place.url.startswith("sqlite")


async def count_pending(run_dir: RunDir) -> int | None:
    """Return how many records of the input have no outcome; None if it cannot be read again (stdin, moved away)."""
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
    """Yield the records of the input, as the run names them; with `left_out`, also those left out."""
    reading = manifest["reading"]
    batches = read_again(run_dir, reading, left_out=left_out)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger, aclosing(batches):
        async for batch in batches:
            if reading["key"] is not None:
                # A record that is left out does not use up its key.
                left = [record for record in batch if is_left_out(record)]
                included = [record for record in batch if not is_left_out(record)]
                batch = [*renamed(included, await find_repeated(ledger, included)), *left]  # noqa: PLW2901
            yield batch


def _combine(run_dir: RunDir, reports: Mapping[str, Report], before: int) -> Report:
    """Combine the reports of all shards: each check with the name of its shard, and the sums of the counts.

    `before` is how many outcomes there were before sharding: no shard asks for those.
    """
    checks = [replace(check, name=f"{shard} {check.name}") for shard, one in reports.items() for check in one.checks]
    counts = add_counts(one.counts for one in reports.values())
    if "pending" in counts:
        counts["pending"] -= before
    return Report(run_dir.path, tuple(checks), counts)
