"""Formats the distribution of a run's labels."""

import math
from collections.abc import Iterator, Mapping

from pipeline.show.formatting import SIMULATED, Facts, cell_of, many, one_line
from pipeline.terminal import cut, width

#: The most values of a label column to show, their most columns, and the length of a bar of 100 %.
CLASSES_SHOWN, VALUE_COLUMNS, BAR_COLUMNS = 8, 40, 20


def label_lines(labels: Mapping[str, Mapping[str, int]], labelled: int) -> list[str]:
    """Format how often each label occurs, with its share as a bar: the most frequent ones of each column."""
    lines = []
    for column, counts, of in countable_labels(labels, labelled):
        first = list(counts.items())[:CLASSES_SHOWN]
        wide = min(VALUE_COLUMNS, max(width(one_line(value)) for value, _ in first))
        digits = max(len(f"{number:,}") for _, number in first)
        for value, number in first:
            line = f"{cell_of(one_line(value), wide)}  {number:>{digits},}  {number / of:>4.0%}  {_bar(number / of)}"
            lines.append(f"  {column:<8}  {line}".rstrip())
            column = ""  # noqa: PLW2901 - only the first line has it
        if len(counts) > len(first):
            rest = sum(counts.values()) - sum(number for _, number in first)
            lines.append(f"  {'':<8}  {len(counts) - len(first)} more values, {rest:,} in all")
    return lines


def countable_labels(
    labels: Mapping[str, Mapping[str, int]], labelled: int
) -> Iterator[tuple[str, Mapping[str, int], int]]:
    """Yield the columns whose values are worth counting, with the counts and the total for the shares.

    A count of each of many numbers is useless; a few numbers, such as ratings, are in numeric order. A record with
    several labels counts once in the shares.
    """
    for column, counts in labels.items():
        by_size = numbers_in_order(counts)
        if by_size is None or len(counts) <= CLASSES_SHOWN:
            yield column, counts if by_size is None else dict(by_size), min(sum(counts.values()), labelled) or 1


def numbers_in_order(counts: Mapping[str, int]) -> list[tuple[str, int]] | None:
    """Return the values with their counts in numeric order; None if one is not a number."""
    try:
        numbers = {value: float(value) for value in counts}
    except ValueError:
        return None
    are_finite = all(map(math.isfinite, numbers.values()))
    return sorted(counts.items(), key=lambda one: numbers[one[0]]) if are_finite else None


def _bar(share: float) -> str:
    """Return a share as a bar with a resolution of an eighth of a column."""
    eighths = round(share * BAR_COLUMNS * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


# -- corrected shares --------------------------------------------------------------------------------------------------

#: The most columns for the name of a class, and the most classes to show.
_NAME_MOST, _CLASSES_MOST = 30, 40


def shares_lines(facts: Facts) -> list[str]:
    """Format the share of each class in each group."""
    lines = [f"{facts['run_dir']}: shares of {facts['column']}, {_ground(facts)}"]
    for group in facts["groups"]:
        lines += ["", *_group_lines(facts, group)]
    if "pseudo" in facts:
        lines += ["", f"  pseudo-outcomes  {facts['pseudo']}"]
    return [*lines, SIMULATED] if facts["simulated"] else lines


def _ground(facts: Facts) -> str:
    if not facts["answered"]:
        return "not corrected: nobody has answered a random draw blind. labelpipe certify creates one"
    answers = many(facts["answered"], "blind answer")
    known = f", and by {many(facts['known'], 'record')} that people had checked before" if facts["known"] else ""
    return f"corrected by {answers} of draw {facts['draw']}, which has {facts['drawn']:,} records{known}"


def _group_lines(facts: Facts, group: Facts) -> Iterator[str]:
    if group["group"] is not None:
        yield f"{facts['by']} = {group['group']}: {group['n']:,} labels, {group['answered']:,} checked"
    if not group["classes"]:
        yield "  a number has no classes; --pseudo writes its pseudo-outcomes"
        return
    wide = min(_NAME_MOST, max(len("class"), *(len(name) for name in group["classes"])))
    yield f"  {'class':<{wide}}     raw   corrected   {facts['confidence']:.0%} interval"
    for name, share in list(group["classes"].items())[:_CLASSES_MOST]:
        yield f"  {cut(name, wide):<{wide}}  {share['raw']:>6.1%}   {_corrected(share)}".rstrip()
    if (more := len(group["classes"]) - _CLASSES_MOST) > 0:
        yield f"  and {more:,} more classes: --json has all of them"


def _corrected(share: Facts) -> str:
    if share["corrected"] is None:
        return ""
    return f"{share['corrected']:>9.1%}   {share['low']:.1%} to {share['high']:.1%}"
