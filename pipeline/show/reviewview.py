"""What a draw and the answers to it came to, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.show.views import SIMULATED

#: What a row of answers can be, and the words for it.
_KINDS = (
    ("corrected", "corrected"),
    ("confirmed", "confirmed"),
    ("unclear", "unclear, without a value"),
    ("known", "taken before"),
    ("unchanged", "as they were, which says nothing"),
    ("unanswered", "not filled in"),
)


def draw_lines(facts: Mapping[str, Any]) -> Sequence[str]:
    """Which records were drawn, from how many, and what to do with the file."""
    count, chances = facts["records"], [item["probability"] for item in facts["items"]]
    seen = "blind: the model's labels are not in it" if facts["blind"] else "with the model's labels filled in"
    lines = [
        f"Draw {facts['draw']}: {count:,} of {facts['population']:,} records, seed {facts['seed']}, {seen}.",
        f"  probability  {_chance(min(chances))}" + f" to {_chance(max(chances))}" * (min(chances) != max(chances)),
    ]
    if facts["file"] is not None:
        lines.append(f"  file         {facts['file']}")
        lines.append(f"  next         labelpipe review {facts['run_dir']} --from {facts['file']} --by NAME")
    return [*lines, f"  {SIMULATED}"] if facts["simulated"] else lines


def answers_lines(facts: Mapping[str, Any]) -> Sequence[str]:
    """How many answers came in, of which kind, and whether the files have them."""
    whose = "to no draw" if facts["draw"] is None else f"to draw {facts['draw']}{', blind' * facts['blind']}"
    counts = [f"{facts[name]:,} {words}" for name, words in _KINDS if facts[name]]
    new = facts["answers"]
    lines = [
        f"{new:,} new answer{'s' * (new != 1)} of {facts['by']} {whose}.",
        f"  rows   {', '.join(counts)}",
    ]
    if facts["files"] == "written":
        lines.append("  files  written again with the corrections")
    if facts["told"]:
        lines.append(f"  {facts['told']}")
    return [*lines, f"  {SIMULATED}"] if facts["simulated"] else lines


def _chance(value: float) -> str:
    return f"{value:.4g}"
