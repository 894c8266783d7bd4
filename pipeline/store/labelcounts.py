"""How often each label was given, as the files of rows have them: with what people have corrected."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.records import JSON
from pipeline.store.corrected import NOTHING, Corrected, corrected_at
from pipeline.store.queries import label_of, outcomes_of

#: A label column is one of classes where its values are so short, and there are so few of them; few in any case.
CLASS_CHARS, CLASSES, FEW_CLASSES = 200, 200, 5
#: Longer values than this may be sentences: each of them has to come so often on average.
LONG_CHARS, OFTEN = 40, 4
#: Numbers with a fraction, as a confidence has, are classes only where there are so few of them.
FRACTIONS = 12
#: Equal labels are counted before they are read, so many at a time: of classes there are few, and reading is slow.
TEXTS = 4096


def corrections_to_show(folder: Path) -> Corrected:
    """The corrections of a run; none where they cannot be read: `verify` tells of it, and a look shows the rest."""
    try:
        return corrected_at(folder)
    except (SetupError, StoreError):
        return NOTHING


def label_counts(
    connection: sqlite3.Connection, columns: Sequence[str], corrected: Corrected = NOTHING
) -> dict[str, dict[str, int]]:
    """How often each value of these label columns was given, the most frequent first; of classes, not of free texts.

    A column is one of classes where its values are short and few. All of its labels are looked at, until it is none.
    Of a list of labels each one counts; an empty list counts as `[]`.
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
        if (now := corrected.of(outcome)) is not outcome:
            _count(outcome.label or {}, -1, counts)
            _count(now.label or {}, 1, counts)
    return {
        column: {value: count for value, count in found.most_common() if count}
        for column, found in counts.items()
        if _are_classes(+found)
    }


def given_by_people(connection: sqlite3.Connection, corrected: Corrected) -> int:
    """How many records have a label from a person and none from the model."""
    without = (one for one in outcomes_of(connection, list(corrected.by_key)).values() if one.label is None)
    return sum(corrected.of(one).label is not None for one in without)


def _are_classes(found: Counter[str]) -> bool:
    if any(len(value) > LONG_CHARS for value in found):
        return len(found) <= found.total() // OFTEN
    return 0 < len(found) <= max(FEW_CLASSES, found.total() // 2)


def _count_texts(texts: Mapping[str | None, int], counts: dict[str, Counter[str]]) -> None:
    for text, times in texts.items():
        _count(label_of(text), times, counts)


def _count(label: Mapping[str, JSON], times: int, counts: dict[str, Counter[str]]) -> None:
    """Count the values of a label that was given so often; columns that hold no classes go."""
    for column in list(counts):
        value = label.get(column)
        if value is None:
            continue
        items: Sequence[JSON] = value if isinstance(value, list) and value else [value]
        told = {one if isinstance(one, str) else codec.dumps(one).decode() for one in items}
        for text in told:
            counts[column][text] += times
        most = FRACTIONS if isinstance(value, float) and not value.is_integer() else CLASSES
        is_nested = any(isinstance(one, list | dict) and one for one in items)
        if is_nested or len(counts[column]) > most or max(map(len, told)) > CLASS_CHARS:
            del counts[column]
