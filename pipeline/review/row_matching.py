"""Finds the record of each row of a file: by its key, otherwise by the carried columns."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import codec
from pipeline.errors import InputError, list_names
from pipeline.records import JSON, Status
from pipeline.review.cell_values import matches_cell, unescape
from pipeline.review.reviewed_run import KEY, ReviewedRun
from pipeline.review.row_files import FileRow
from pipeline.store import CorrectionSet, Ledger, cell, rows_of

#: The most keys that a message names.
_KEYS_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class MatchedRow:
    """A row, and the key of the record that it is about."""

    key: str
    row: FileRow


async def match_rows(
    reviewed_run: ReviewedRun, ledger: Ledger, corrected: CorrectionSet, rows: Sequence[FileRow], file: Path
) -> list[MatchedRow]:
    """Return the rows with their records. Raises InputError if one is uncertain, or has contradictory answers."""
    matched = await _by_key(reviewed_run, ledger, rows, file)
    if matched is None:
        matched = await _by_columns(reviewed_run, ledger, corrected, rows, file)
    first: dict[str, MatchedRow] = {}
    twice = []
    for one in matched:
        before = first.setdefault(one.key, one)
        if before is not one and _row_values(reviewed_run, before.row) != _row_values(reviewed_run, one.row):
            twice.append(f"lines {before.row.line} and {one.row.line} ({one.key})")
    if twice:
        raise InputError(
            f"{file}: nothing was imported, because these lines contradict each other: {list_names(twice)}"
        )
    return list(first.values())


async def _by_key(
    reviewed_run: ReviewedRun, ledger: Ledger, rows: Sequence[FileRow], file: Path
) -> list[MatchedRow] | None:
    """Match rows by the column of keys; None if there is none, or it contains something else."""
    title = reviewed_run.key_column(rows[0].values)
    if title is None:
        return None
    texts = [str(row.values.get(title) if row.values.get(title) is not None else "") for row in rows]
    known = await ledger.known(list({*texts, *map(unescape, texts)}))
    if not known and title == KEY != reviewed_run.key:
        return None  # a field of the records that has this name
    keys = [text if text in known else unescape(text) for text in texts]
    strange = [f"line {row.line} ({key!r})" for key, row in zip(keys, rows, strict=True) if key not in known]
    if strange:
        raise InputError(
            f"{file}: nothing was imported, because no record of the run has these keys: {list_names(strange)}. A "
            "spreadsheet may have changed them: 007 becomes 7"
        )
    return [MatchedRow(key, row) for key, row in zip(keys, rows, strict=True)]


async def _by_columns(
    reviewed_run: ReviewedRun, ledger: Ledger, corrected: CorrectionSet, rows: Sequence[FileRow], file: Path
) -> list[MatchedRow]:
    """Match rows by the carried columns: a row of labels.csv whose texts only one record has."""
    table = reviewed_run.layout.label_table()
    titles = table.titles[: len(table.carried)]
    carried_titles = [title for title in titles if title in rows[0].values]
    if not carried_titles:
        raise InputError(
            f"{file}: has no column {reviewed_run.key_title!r} and none that was carried from the input, so nobody "
            f"knows which record a row is about. Add the keys; the columns are {list_names(rows[0].values)}"
        )
    places = [titles.index(title) for title in carried_titles]
    keys_of: defaultdict[bytes, list[str]] = defaultdict(list)
    labels: dict[str, Mapping[str, JSON]] = {}
    order: list[bytes] = []
    async for block in rows_of(ledger, reviewed_run.layout.order, corrected=corrected):
        for _, outcome in block:
            if outcome.status is Status.LABELLED:
                for values in table.rows(outcome):
                    order.append(mark := _row_digest([cell(values[place]) for place in places]))
                    keys_of[mark].append(outcome.record.key)
                    labels[outcome.record.key] = dict(zip(table.titles, values, strict=True))
    marks = [_row_digest([_text(row.values.get(title)) for title in carried_titles]) for row in rows]
    if marks == order and any(len(keys) > 1 for keys in keys_of.values()):
        # Nothing was moved, added, or deleted, so rows are in the order of their records.
        turn = {mark: iter(keys) for mark, keys in keys_of.items()}
        return [MatchedRow(next(turn[mark]), row) for mark, row in zip(marks, rows, strict=True)]
    return _unique(reviewed_run, list(zip(marks, rows, strict=True)), keys_of, labels, file)


def _unique(
    reviewed_run: ReviewedRun,
    rows: Sequence[tuple[bytes, FileRow]],
    keys_of: Mapping[bytes, Sequence[str]],
    labels: Mapping[str, Mapping[str, JSON]],
    file: Path,
) -> list[MatchedRow]:
    matched, strange, doubtful = [], [], []
    for mark, row in rows:
        keys = keys_of.get(mark, ())
        names = [name for name in reviewed_run.names if name in row.values]
        if len(keys) == 1:
            matched.append(MatchedRow(keys[0], row))
        elif not keys:
            strange.append(f"line {row.line}")
        # A row with the same labels as one of the records is no new answer.
        elif not any(all(matches_cell(row.values[name], labels[key].get(name)) for name in names) for key in keys):
            doubtful.append(f"line {row.line} ({', '.join(keys[:_KEYS_IN_MESSAGE])})")
    if strange:
        raise InputError(
            f"{file}: nothing was imported, because these rows match no record of the run: {list_names(strange)}. "
            "Leave all columns but the labels as they are, or add the keys"
        )
    if doubtful:
        raise InputError(
            f"{file}: nothing was imported, because these rows match several records: {list_names(doubtful)}. Add "
            f"a column {reviewed_run.key_title!r} with the keys"
        )
    return matched


def _row_values(reviewed_run: ReviewedRun, row: FileRow) -> list[str]:
    return [_text(row.values.get(name)) for name in (*reviewed_run.names, "unclear", "note")]


def _text(value: JSON) -> str:
    return unescape(value) if isinstance(value, str) else cell(value)


def _row_digest(texts: Sequence[str]) -> bytes:
    """Return a digest that is equal for rows whose cells mean the same, however a spreadsheet has written them."""
    return codec.digest128(codec.canonical([_canonical_text(unescape(text)) for text in texts]))


def _canonical_text(text: str) -> str:
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return repr(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
