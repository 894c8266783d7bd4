"""Limits: one door that every call passes, and what stands behind it (meters, the gate, the day, prices)."""

from __future__ import annotations

from pipeline.limits.admission import Admission, DoorState, Permit
from pipeline.limits.day import DayMeter
from pipeline.limits.gate import Gate, Outage
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.limits.price import Price, price_of

__all__ = ["Admission", "DayMeter", "DoorState", "Gate", "Meter", "Outage", "Pace", "Permit", "Price", "price_of"]
