"""Checks whether the files of rows are identical to the ledger's rows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from pipeline.errors import LabelpipeError, MissingExtraError
from pipeline.records import Outcome
from pipeline.store import parquet
from pipeline.store.correctionset import CorrectionSet, corrections_for, refuse_lost, summarize_corrections
from pipeline.store.difference import FileProof, difference
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.outcomerows import rows_of
from pipeline.store.projection import RowFormat, RowMatch, match_rows, parquet_format, row_formats
from pipeline.store.queries import Checkpoint
from pipeline.store.rundir import RunDir
from pipeline.store.sqlexport import SqlPlace, SqlTarget, compare_table

#: What to do about a file that somebody has changed.
CHANGED = (
    "Give the run's command again: it moves this file aside, as it is, and makes another from the ledger, whose labels "
    "stay as they are."
)
_AND_REVIEWS = " with the corrections"
#: What to do about a file that is empty or missing.
_HOW_TO_FIX = "Give the run's command again: it is made again from the ledger."


#: Returns the URL of a table's database, or None if it is unknown.
FindUrl = Callable[[SqlPlace], str | None]


async def prove_files(run_dir: RunDir, ledger: Ledger, find_url: FindUrl = lambda place: place.url) -> list[FileProof]:
    """Compare every file of rows, and the table in a database, with the ledger. Memory stays flat.

    Raises StoreError if the ledger fails.
    """
    text = await ledger.meta_get("layout")
    layout = Layout(()) if text is None else Layout.from_text(text)
    checkpoints = await ledger.checkpoints()
    is_waiting = any(_is_waiting(checkpoints.get(one.name), one) for one in row_formats(layout))
    try:
        refuse_lost(run_dir.path, layout)
        corrected = await corrections_for(run_dir.path, layout)
        summary = await asyncio.to_thread(
            summarize_corrections, ledger.path, layout.corrected, is_waiting=text is None or is_waiting
        )
    except LabelpipeError as error:
        return [FileProof("reviews.db", False, 0, str(error))]
    reviews = [FileProof("corrections", True, summary.count, summary.text)] if summary else []
    if text is None:
        waits = "are to be built (again), and the run's next session does it."
        return [FileProof("files of rows", True, 0, waits), *reviews]
    proofs = [
        await _prove_text(run_dir, ledger, row_format, checkpoints.get(row_format.name), corrected)
        for row_format in row_formats(layout)
    ]
    if "parquet" in layout.formats:
        proofs.append(await _prove_parquet(run_dir, ledger, layout, checkpoints.get("labels.parquet"), corrected))
    if "sql" in layout.formats and (place := await ledger.meta_get("sql")):
        proofs.append(await _prove_table(ledger, SqlPlace.from_text(place), find_url))
    return [*proofs, *reviews]


def _is_waiting(checkpoint: Checkpoint | None, row_format: RowFormat) -> bool:
    """Whether the file will be rebuilt, so that it need not be compared."""
    return checkpoint is None or checkpoint.is_stale or checkpoint.bytes < 0 or checkpoint.shape != row_format.shape


async def _prove_table(ledger: Ledger, place: SqlPlace, find_url: FindUrl) -> FileProof:
    if (url := find_url(place)) is None:
        message = f"{place.url_env} is not set." if place.url is None else "verify --remote looks into its database."
        return FileProof(f"table {place.table}", True, 0, f"not compared: {message}")
    return await asyncio.to_thread(compare_table, SqlTarget(url, place.table), ledger.path)


async def _prove_text(
    run_dir: RunDir, ledger: Ledger, row_format: RowFormat, checkpoint: Checkpoint | None, corrected: CorrectionSet
) -> FileProof:
    path = run_dir.path / row_format.name
    if checkpoint is None or _is_waiting(checkpoint, row_format):
        when = "when the session ends" if row_format.order == "input" else "and the run's next session does it"
        return FileProof(row_format.name, True, 0, f"is to be built again, {when}.")
    if lost := _lost(path, checkpoint):
        return FileProof(row_format.name, False, 0, lost)
    with path.open("rb") as file:
        # Read only up to the current end: a session may add rows meanwhile.
        size_bytes = file.seek(0, 2)
        file.seek(0)
        match = await match_rows(file, row_format, _blocks(ledger, row_format, checkpoint, corrected), RowMatch())
    pairs = enumerate(zip(match.actual, match.expected, strict=False))
    differs_at = next((index for index, (actual, expected) in pairs if actual != expected), None)
    if differs_at is not None:
        fault = f"differs from the ledger at byte {match.size_bytes + differs_at:,}."
    elif not match.expected and match.size_bytes < size_bytes:
        fault = f"has {size_bytes - match.size_bytes:,} bytes more than the ledger's rows."
    elif size_bytes < checkpoint.bytes:
        fault = f"has {size_bytes:,} bytes, but {checkpoint.bytes:,} were written."
    else:
        more = match.expected or (row_format.order == "input" and await ledger.last_seq() > checkpoint.position)
        return FileProof(row_format.name, True, match.rows, _describe_rows(match.rows, corrected, more=bool(more)))
    differences = await difference(path, row_format, _blocks(ledger, row_format, checkpoint, corrected))
    message = "Its columns are others." if differences is None else str(differences)
    return FileProof(row_format.name, False, match.rows, f"{fault} {message} {CHANGED}")


def _lost(path: Path, checkpoint: Checkpoint) -> str:
    """Describe a file that is missing or empty; an empty text if there is something to compare."""
    if path.exists() and (path.stat().st_size or checkpoint.bytes <= 0):
        return ""
    what = "is empty" if path.exists() else "is missing"
    return f"{what}, and {max(0, checkpoint.bytes):,} bytes of it were written. {_HOW_TO_FIX}"


def _describe_rows(rows: int, corrected: CorrectionSet, *, more: bool) -> str:
    rest = ", and the rest is still to come" if more else ""
    return f"{rows:,} rows, identical to the ledger{_AND_REVIEWS * bool(corrected.by_key)}{rest}."


def _blocks(
    ledger: Ledger, row_format: RowFormat, checkpoint: Checkpoint, corrected: CorrectionSet
) -> AsyncIterator[list[tuple[int, Outcome]]]:
    """Return the rows that the file may have: in input order, those up to its last rebuild; otherwise all."""
    upto = checkpoint.position if row_format.order == "input" else None
    return rows_of(ledger, row_format.order, upto=upto, corrected=corrected)


async def _prove_parquet(
    run_dir: RunDir, ledger: Ledger, layout: Layout, checkpoint: Checkpoint | None, corrected: CorrectionSet
) -> FileProof:
    path = run_dir.labels("parquet")
    row_format = parquet_format(layout)
    if checkpoint is None or _is_waiting(checkpoint, row_format):
        return FileProof(row_format.name, True, 0, "is to be made when the run's session ends.")
    if lost := _lost(path, checkpoint):
        return FileProof(row_format.name, False, 0, lost)
    try:
        comparison = await parquet.compare(
            path, row_format.table, lambda: _blocks(ledger, row_format, checkpoint, corrected)
        )
    except MissingExtraError as error:
        return FileProof(row_format.name, True, 0, f"not compared: {error}")
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        sizes = f"it has {path.stat().st_size:,} bytes, and {checkpoint.bytes:,} were written"
        return FileProof(row_format.name, False, 0, f"cannot be read, {sizes}: {str(error).rstrip('.')}. {CHANGED}")
    if comparison.fault:
        return FileProof(row_format.name, False, comparison.rows, f"{comparison.fault} {CHANGED}")
    rest = ", and the rest comes when the session ends" if comparison.ended else ""
    whose = f"those of the ledger{_AND_REVIEWS * bool(corrected.by_key)}"
    return FileProof(
        row_format.name, True, comparison.rows, f"{comparison.rows:,} rows, value for value {whose}{rest}."
    )
