"""Counts labels and votes, with people's corrections, as in the files of rows."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.records import JSON, Outcome
from pipeline.store.columntypes import EXACT
from pipeline.store.correctionset import NOTHING, CorrectionSet, read_corrections
from pipeline.store.queries import label_of, outcomes_of
from pipeline.store.rows import json_value, labelled

#: A label column contains classes if its values are at most this long and this few. A few values are always allowed.
CLASS_CHARS, CLASSES, FEW_CLASSES = 200, 200, 5
#: Values longer than this may be sentences, so each must occur this often on average.
LONG_CHARS, OFTEN = 40, 4
#: Numbers with a fraction, such as a confidence, are classes only if there are at most this many.
FRACTIONS = 12
#: Equal labels are counted before they are parsed, this many at a time: classes are few, and parsing is slow.
TEXTS = 4096


@dataclass(frozen=True, slots=True)
class VoteCounts:
    """The votes of the labeled records that were asked themselves, and are not copies.

    `pairs` counts the first two votes of each record, as JSON, without abstentions. Later votes were asked for only if
    these differ.
    """

    records: int
    votes: int
    needs_review: int
    pairs: Mapping[tuple[str, ...], int]


def corrections_or_none(folder: Path) -> CorrectionSet:
    """Return the corrections of a run; none if they cannot be read, because `verify` reports that."""
    try:
        return read_corrections(folder)
    except (SetupError, StoreError):
        return NOTHING


def label_counts(
    connection: sqlite3.Connection, columns: Sequence[str], corrected: CorrectionSet = NOTHING
) -> dict[str, dict[str, int]]:
    """Count the values of these label columns, most frequent first, if they are classes and not free text.

    A column contains classes if its values are short and few. Its labels are counted until it contains none. Each label
    in a list counts; an empty list counts as `[]`. A record of several rows counts as a list of their values. Equal
    numbers count as one value: 1.0 is 1.
    """
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    texts: Counter[str | None] = Counter()
    for (text,) in connection.execute("SELECT label FROM outcomes WHERE status = 'labelled'"):
        texts[text] += 1
        if len(texts) >= TEXTS:
            _count_texts(texts, counts)
            texts.clear()
        if not counts:
            break
    _count_texts(texts, counts)
    for outcome in outcomes_of(connection, list(corrected.by_key)).values():
        if (now := corrected.apply(outcome)) is not outcome:  # never a record of several rows
            _count(outcome.label or {}, -1, counts)
            _count(now.label or {}, 1, counts)
    return {
        column: {value: count for value, count in values.most_common() if count}
        for column, values in counts.items()
        if _are_classes(+values)
    }


def vote_counts(connection: sqlite3.Connection, corrected: CorrectionSet = NOTHING) -> VoteCounts:
    """Count the votes of the whole run. Labels that people have corrected or confirmed no longer need a review."""
    records = votes = needs_review = 0
    pairs: Counter[tuple[str, ...]] = Counter()
    for text, copied in connection.execute("SELECT label, copied_from FROM outcomes WHERE status = 'labelled'"):
        label = label_of(text)
        cast = label.get("votes")
        if not isinstance(cast, list):
            continue
        needs_review += label.get("needs_review") is True
        if copied is None:
            records, votes = records + 1, votes + len(cast)
            pairs[tuple(codec.canonical(one).decode() for one in cast[:2] if one is not None)] += 1
    for outcome in outcomes_of(connection, list(corrected.by_key)).values():
        needs_review -= _needs_review(outcome) and not _needs_review(corrected.apply(outcome))
    return VoteCounts(records, votes, needs_review, pairs)


def _needs_review(outcome: Outcome) -> bool:
    return (outcome.label or {}).get("needs_review") is True


def count_human_labels(connection: sqlite3.Connection, corrected: CorrectionSet) -> int:
    """Count the records that have a label from a person and none from the model."""
    without = (one for one in outcomes_of(connection, list(corrected.by_key)).values() if one.label is None)
    return sum(corrected.apply(one).label is not None for one in without)


def _are_classes(counts: Counter[str]) -> bool:
    if any(len(value) > LONG_CHARS for value in counts):
        return len(counts) <= counts.total() // OFTEN
    return 0 < len(counts) <= max(FEW_CLASSES, counts.total() // 2)


def _count_texts(texts: Mapping[str | None, int], counts: dict[str, Counter[str]]) -> None:
    for text, times in texts.items():
        _count(_label_of(text), times, counts)


def _label_of(text: str | None) -> Mapping[str, JSON]:
    """Return a saved label. If it has several rows, the values of a column are a list."""
    try:
        label, rows = labelled(json_value(text))
    except (ValueError, TypeError):  # a damaged row, which is reported elsewhere
        return {}
    merged: dict[str, JSON] = dict(label) if isinstance(label, dict) else {}
    values: dict[str, list[JSON]] = {}
    for row in rows or ():
        for column, value in row.items() if isinstance(row, dict) else ():
            values.setdefault(column, []).extend(value if isinstance(value, list) else [value])
    return merged | {column: [one for one in several if one is not None] for column, several in values.items()}


def _count(label: Mapping[str, JSON], times: int, counts: dict[str, Counter[str]]) -> None:
    """Count the values of a label that occurs `times` times, and drop columns without classes."""
    for column in list(counts):
        value = label.get(column)
        if value is None:
            continue
        items: Sequence[JSON] = value if isinstance(value, list) and value else [value]
        texts = set(map(_value_text, items))
        for text in texts:
            counts[column][text] += times
        most = FRACTIONS if any(isinstance(one, float) and not one.is_integer() for one in items) else CLASSES
        is_nested = any(isinstance(one, list | dict) and one for one in items)
        if is_nested or len(counts[column]) > most or max(map(len, texts)) > CLASS_CHARS:
            del counts[column]


def _value_text(value: JSON) -> str:
    """Return the text that a value counts as."""
    if isinstance(value, str):
        return value
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT
    return codec.dumps(int(value) if is_whole else value).decode()
