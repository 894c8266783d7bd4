"""How the labels of a run are distributed, for a person."""

import math
from collections.abc import Iterator, Mapping

from pipeline.show.formatting import cell_of, one_line
from pipeline.terminal import width

#: Values of a label column that are shown, how wide they may be, and how long the bar of all of them would be.
CLASSES_SHOWN, VALUE_COLUMNS, BAR_COLUMNS = 8, 40, 20


def label_lines(labels: Mapping[str, Mapping[str, int]], labelled: int) -> list[str]:
    """How often each label was given, with its share as a bar; the most frequent ones of each column."""
    lines = []
    for column, counts, of in countable_labels(labels, labelled):
        first = list(counts.items())[:CLASSES_SHOWN]
        wide = min(VALUE_COLUMNS, max(width(one_line(value)) for value, _ in first))
        digits = max(len(f"{number:,}") for _, number in first)
        for value, number in first:
            line = f"{cell_of(one_line(value), wide)}  {number:>{digits},}  {number / of:>4.0%}  {_bar(number / of)}"
            lines.append(f"  {column:<8}  {line}".rstrip())
            column = ""  # noqa: PLW2901 - it stands in the first line only
        if len(counts) > len(first):
            rest = sum(counts.values()) - sum(number for _, number in first)
            lines.append(f"  {'':<8}  {len(counts) - len(first)} more values, {rest:,} in all")
    return lines


def countable_labels(
    labels: Mapping[str, Mapping[str, int]], labelled: int
) -> Iterator[tuple[str, Mapping[str, int], int]]:
    """The columns whose values are worth counting, with what their shares are shares of.

    How often each of many numbers came says nothing; a few of them, as of a rating, stand in their order. A record that
    has several labels counts once in the shares.
    """
    for column, counts in labels.items():
        by_size = numbers_in_order(counts)
        if by_size is None or len(counts) <= CLASSES_SHOWN:
            yield column, counts if by_size is None else dict(by_size), min(sum(counts.values()), labelled) or 1


def numbers_in_order(counts: Mapping[str, int]) -> list[tuple[str, int]] | None:
    """The values with their counts from the lowest number to the highest; None where one is no number."""
    try:
        numbers = {value: float(value) for value in counts}
    except ValueError:
        return None
    are_finite = all(map(math.isfinite, numbers.values()))
    return sorted(counts.items(), key=lambda one: numbers[one[0]]) if are_finite else None


def _bar(share: float) -> str:
    """A share as a bar of eighths of a column."""
    eighths = round(share * BAR_COLUMNS * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
