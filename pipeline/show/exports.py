"""What an export came to, for a person."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.facts import Export


def export_lines(done: Export) -> Sequence[str]:
    """Where the labels are now, and what was changed for that."""
    changes = [f"{count:,} {what}" for what in ("added", "updated", "removed") if (count := getattr(done, what))]
    lines = [
        f"{done.place}: {done.rows:,} row{'s' * (done.rows != 1)}; {', '.join(changes) or 'it was up to date'}",
    ]
    if done.removed:
        lines.append("  removed  rows of records that have no label in this run now, or fewer rows")
    if done.made_anew:
        lines.append("  again    the table was dropped and created, because a column has another type or name now")
    return [*lines, "  SIMULATED LABELS"] if done.simulated else lines
