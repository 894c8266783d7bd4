"""Limits: one door that every call passes, and what stands behind it (gate, meters, day, hours, budget, tuner)."""

from __future__ import annotations

from pipeline.limits.admission import Admission, DayLimitReachedError, DoorState, KeepMark, Most, Permit
from pipeline.limits.budget import (
    NOTHING,
    Budget,
    BudgetReachedError,
    Left,
    Spend,
    estimate_left,
    prompt_bound,
    spent_text,
    what_is_left,
)
from pipeline.limits.day import DayMeter
from pipeline.limits.gate import CANARY_S, WARM_UP_S, Gate, Outage
from pipeline.limits.hours import Hours
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.limits.price import Price, Tariff, price_of
from pipeline.limits.tuner import Tuner

__all__ = [
    "CANARY_S",
    "NOTHING",
    "WARM_UP_S",
    "Admission",
    "Budget",
    "BudgetReachedError",
    "DayLimitReachedError",
    "DayMeter",
    "DoorState",
    "Gate",
    "Hours",
    "KeepMark",
    "Left",
    "Meter",
    "Most",
    "Outage",
    "Pace",
    "Permit",
    "Price",
    "Spend",
    "Tariff",
    "Tuner",
    "estimate_left",
    "price_of",
    "prompt_bound",
    "spent_text",
    "what_is_left",
]
