"""What a section found, as a table for people and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `passed` is None where there is no target."""

    name: str
    measured: str
    target: str = ""
    passed: bool | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A section's title, its rows, and the raw figures behind them."""

    title: str
    rows: Sequence[Row]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def missed(self) -> int:
        """How many targets were not reached."""
        return sum(row.passed is False for row in self.rows)

    def lines(self) -> list[str]:
        """The table."""
        cells = [(row.name, row.measured, row.target, _verdict(row)) for row in self.rows]
        widths = [max(len(line[at]) for line in cells) for at in range(3)]
        lines = [
            f"  {name:<{widths[0]}}  {measured:>{widths[1]}}  {target:<{widths[2]}}  {verdict}".rstrip()
            for name, measured, target, verdict in cells
        ]
        return ["", self.title, *lines]


def _verdict(row: Row) -> str:
    return {True: "pass", False: "MISS", None: ""}[row.passed]


def at_least(name: str, value: float, target: float, form: str) -> Row:
    """A figure that must not be smaller; `form` is a format spec with its unit, as `{:.1f}x`."""
    return Row(name, form.format(value), f"at least {form.format(target)}", value >= target)


def at_most(name: str, value: float, target: float, form: str) -> Row:
    """A figure that must not be larger."""
    return Row(name, form.format(value), f"at most {form.format(target)}", value <= target)


def exactly(name: str, value: float, target: float, form: str = "{:,.0f}") -> Row:
    """A figure that must be this one."""
    return Row(name, form.format(value), form.format(target), value == target)
