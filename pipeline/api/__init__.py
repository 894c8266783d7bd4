"""What Python calls: plain functions that give their result as `run` does, and results that show themselves.

The asynchronous forms, for a program with an event loop of its own, have an `a` in front: `arun`, `acheck`, ...
"""

from __future__ import annotations

from pipeline.api.measures import Evaluation, aevaluate, evaluate
from pipeline.api.runs import (
    Checks,
    Export,
    Plan,
    Preview,
    RehearsedPlan,
    Report,
    RunStatus,
    RunSummary,
    acheck,
    aexport,
    aplan,
    apreview,
    arehearse_plan,
    areplay,
    arun,
    astatus,
    averify,
    check,
    export,
    plan,
    preview,
    rehearse_plan,
    replay,
    run,
    status,
    verify,
)

__all__ = [
    "Checks",
    "Evaluation",
    "Export",
    "Plan",
    "Preview",
    "RehearsedPlan",
    "Report",
    "RunStatus",
    "RunSummary",
    "acheck",
    "aevaluate",
    "aexport",
    "aplan",
    "apreview",
    "arehearse_plan",
    "areplay",
    "arun",
    "astatus",
    "averify",
    "check",
    "evaluate",
    "export",
    "plan",
    "preview",
    "rehearse_plan",
    "replay",
    "run",
    "status",
    "verify",
]
