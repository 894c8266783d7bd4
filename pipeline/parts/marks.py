"""Simulated labels say so in every row: nobody must train on them by mistake."""

from __future__ import annotations

from dataclasses import replace

from pipeline.records import Outcome, Problem

COLUMN = "simulated"
_WORD = " (simulated)"


def mark_simulated(outcome: Outcome) -> Outcome:
    """The outcome with a column, or a word in its message, that says that no model was asked."""
    if outcome.problem is not None:
        told = Problem(outcome.problem.code, f"{outcome.problem.message}{_WORD}")
        return replace(outcome, problem=told)
    return replace(outcome, label={**(outcome.label or {}), COLUMN: True})


def is_marked(outcome: Outcome) -> bool:
    """Whether the outcome says that no model was asked."""
    if outcome.problem is not None:
        return outcome.problem.message.endswith(_WORD)
    return COLUMN in (outcome.label or {})
