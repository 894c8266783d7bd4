"""Limits every call: admission and its parts (gate, resource, day, hours, budget, tuner).

"Worth 5 used" in these files: without it, the share used falls by 5 points on the kind of server that needs it most.
"Worth 5 refused": 5 more of a hundred calls are refused. `python -m benchmarks ablation` measures both.
"""

from __future__ import annotations

from pipeline.limits.admission import Admission, AdmissionState, DayLimitReachedError, Permit, SaveSpendBound, TopUp
from pipeline.limits.budget import NOTHING, PICO_PER_USD, Budget, BudgetReachedError, Spend, TokenBound, prompt_bound
from pipeline.limits.day import DayMeter, count_midnights
from pipeline.limits.gate import ALONE_S, WARM_UP_S, Gate, Outage
from pipeline.limits.hours import Hours
from pipeline.limits.local import LocalResource
from pipeline.limits.meters import Meter
from pipeline.limits.pace import Pace
from pipeline.limits.price import Price, Tariff, price_of
from pipeline.limits.queuelimit import QueueLimit
from pipeline.limits.remaining import estimate_remaining, format_spent
from pipeline.limits.resource import Hold, Rate, Resource, ResourceState, Verdict
from pipeline.limits.tuner import Tuner
