"""Limits: one door that every call passes, and what stands behind it (gate, resource, day, hours, budget, tuner)."""

from __future__ import annotations

from pipeline.limits.admission import Admission, DayLimitReachedError, DoorState, KeepMark, Permit
from pipeline.limits.budget import (
    NOTHING,
    Budget,
    BudgetReachedError,
    Left,
    Most,
    Spend,
    estimate_left,
    prompt_bound,
    spent_text,
    what_is_left,
)
from pipeline.limits.day import DayMeter
from pipeline.limits.gate import ALONE_S, WARM_UP_S, Gate, Outage
from pipeline.limits.hours import Hours
from pipeline.limits.local import LocalResource
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.limits.price import Price, Tariff, price_of
from pipeline.limits.resource import Hold, Rate, Resource, ResourceState, Verdict
from pipeline.limits.tuner import Tuner

__all__ = [
    "ALONE_S",
    "NOTHING",
    "WARM_UP_S",
    "Admission",
    "Budget",
    "BudgetReachedError",
    "DayLimitReachedError",
    "DayMeter",
    "DoorState",
    "Gate",
    "Hold",
    "Hours",
    "KeepMark",
    "Left",
    "LocalResource",
    "Meter",
    "Most",
    "Outage",
    "Pace",
    "Permit",
    "Price",
    "Rate",
    "Resource",
    "ResourceState",
    "Spend",
    "Tariff",
    "Tuner",
    "Verdict",
    "estimate_left",
    "price_of",
    "prompt_bound",
    "spent_text",
    "what_is_left",
]
