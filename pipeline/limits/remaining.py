"""Estimates what is left to do and what it would cost, as text and as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.limits.budget import Spend
from pipeline.units import exact_dollars


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left to do. `more` is what it would cost at the average so far.

    `records` is None if unknown; `exact` is false if the input was not read to its end. `more` is None if `records` is,
    or if no record is done.
    """

    records: int | None
    exact: bool
    more: Spend | None
    text: str


def estimate_remaining(records: int | None, spent_so_far: Spend, records_done: int, *, exact: bool = True) -> Remaining:
    """Return what is left to do and what it would cost, as numbers and as text."""
    more = None
    if records is not None and records_done > 0:
        share = records / records_done
        usd = None if spent_so_far.usd is None else spent_so_far.usd * share
        tokens = None if spent_so_far.tokens is None else round(spent_so_far.tokens * share)
        more = Spend(usd, tokens)
    text = describe_remaining(records, spent_so_far, records_done)
    return Remaining(records, exact, more, text if exact or not records else f"about {text}")


def describe_remaining(records_left: int | None, spent_so_far: Spend, records_done: int) -> str:
    """Return what is left to do and what it would cost, as text. None: the input was not read to its end."""
    if records_left == 0:
        return "no record is left"
    left = "how many records are left is not known" if records_left is None else f"{_records(records_left)} left"
    if records_done <= 0:
        return f"{left}; what they would cost is not known, since none is done"
    if records_left is None:
        return f"{left}; a thousand cost about {_amount(spent_so_far, 1000 / records_done)}"
    more = _amount(spent_so_far, records_left / records_done)
    whole = _amount(spent_so_far, 1 + records_left / records_done)
    return f"{left}; at what {records_done:,} cost so far they need about {more} more, the whole run {whole}"


def _records(count: int) -> str:
    return "1 record is" if count == 1 else f"{count:,} records are"


def _amount(spend: Spend, times: float) -> str:
    parts = [] if spend.usd is None else [exact_dollars(spend.usd * times)]
    if spend.tokens is not None:
        parts.append(f"{round(spend.tokens * times):,} tokens")
    return " and ".join(parts) or "an unknown amount"


def format_spent(spend: Spend) -> str:
    """Return what is spent, as text."""
    return f"{_amount(spend, 1.0)} are spent"
