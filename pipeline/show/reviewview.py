"""Formats draws and the answers to them."""

from collections.abc import Sequence

from pipeline.show.formatting import SIMULATED, Facts

#: The kinds of rows of answers, and their words.
_KINDS = (
    ("corrected", "corrected"),
    ("confirmed", "confirmed"),
    ("unclear", "unclear, without a value"),
    ("known", "taken before"),
    ("unchanged", "as they were, which says nothing"),
    ("outdated", "older than a correction, which stays"),
    ("unanswered", "not filled in"),
)


def draw_lines(facts: Facts) -> Sequence[str]:
    """Format which records were drawn, from how many, and what to do with the file."""
    count, chances = facts["records"], [item["probability"] for item in facts["items"]]
    how = "blind: without the model's labels" if facts["blind"] else "with the model's labels filled in"
    lines = [
        f"Draw {facts['draw']}: {count:,} of {facts['population']:,} records, seed {facts['seed']}, {how}.",
        f"  probability  {_chance(min(chances))}" + f" to {_chance(max(chances))}" * (min(chances) != max(chances)),
    ]
    if facts["file"] is not None:
        lines.append(f"  file         {facts['file']}")
        lines.append(f"  next         labelpipe review {facts['run_dir']} --from {facts['file']} --by NAME")
    return [*lines, f"  {SIMULATED}"] if facts["simulated"] else lines


def answers_lines(facts: Facts) -> Sequence[str]:
    """Format how many answers of which kind were read, and whether the files have them."""
    whose = "to no draw" if facts["draw"] is None else f"to draw {facts['draw']}{', blind' * facts['blind']}"
    counts = [f"{facts[name]:,} {words}" for name, words in _KINDS if facts[name]]
    new = facts["answers"]
    lines = [
        f"{new:,} new answer{'s' * (new != 1)} of {facts['by']} {whose}.",
        f"  rows   {', '.join(counts)}",
    ]
    if (draw := facts["lies_in"]) is not None:
        lines.append(
            f"  draw   its records are in the blind draw {draw}, but it is not the draw's file: only differences"
        )
        lines.append(
            f"         are imported, which measures nothing. If it is that draw, answered blind: --draw {draw}"
        )
    lines += _accuracies(facts)
    if facts["files"] == "written":
        lines.append("  files  updated with the corrections")
    if facts["told"]:
        lines.append(f"  {facts['told']}")
    if facts["certifies"]:
        lines.append(f"  next   labelpipe certify {facts['run_dir']} --column {facts['certifies']}")
    return [*lines, f"  {SIMULATED}"] if facts["simulated"] else lines


def page_lines(facts: Facts) -> Sequence[str]:
    """Format which draw a page is about, whether it continues the draw, and the address to open."""
    count = facts["records"]
    how = "blind" if facts["blind"] else "with the model's labels shown; they count for corrections, not for measuring"
    begun = f", continued: {facts['answered']:,} are answered" if facts["continued"] else ""
    lines = [
        f"Draw {facts['draw']}: {count:,} of {facts['population']:,} records, seed {facts['seed']}, {how}{begun}.",
        f"  {facts['address']}",
    ]
    return [*lines, f"  {SIMULATED}"] if facts["simulated"] else lines


def reviewed_lines(facts: Facts) -> Sequence[str]:
    """Format the result of a review on the page."""
    answers, by = facts["given"], facts["by"]
    counts = [f"{facts[name]:,} {name}" for name in ("confirmed", "corrected", "unclear") if facts[name]]
    lines = [
        f"{answers:,} answer{'s' * (answers != 1)} of {by} to draw {facts['draw']}.",
        f"  draw   {facts['answered']:,} of {facts['records']:,} answered{': ' * bool(counts)}{', '.join(counts)}",
        *_accuracies(facts),
    ]
    if facts["files"]["state"] == "written":
        lines.append("  files  updated with the corrections")
    if facts["files"]["told"]:
        lines.append(f"  {facts['files']['told']}")
    if facts["answered"] < facts["records"]:
        lines.append(f"  next   labelpipe review {facts['run_dir']} --draw {facts['draw']}")
    return lines


def _accuracies(facts: Facts) -> Sequence[str]:
    """Format the accuracy of each field by the blind answers of a draw, and what it covers."""
    lines = [f"  {_estimate(one)}" for one in facts["estimates"] if one["n"] and facts["blind"]]
    return [*lines, f"  {facts['meant']}"] if lines else []


def _estimate(one: Facts) -> str:
    interval = f"95% interval {one['low']:.1%} to {one['high']:.1%}"
    return f"{one['field']}: accuracy {one['mean']:.1%}, {interval}, from {one['n']:,} blind answers"


def _chance(value: float) -> str:
    return f"{value:.4g}"
