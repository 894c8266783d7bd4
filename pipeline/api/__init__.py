"""What Python calls: plain functions that give their result as `run` does, and results that show themselves.

The asynchronous forms, for a program with an event loop of its own, have an `a` in front: `arun`, `acheck`, ...
"""

from __future__ import annotations

from pipeline.api.certificates import Certification, acertify, certificate_of, certify
from pipeline.api.exporting import DataExport, Export, aexport, export
from pipeline.api.measures import Comparison, Evaluation, acompare, aevaluate, compare, evaluate
from pipeline.api.reviews import DrawFile, TakenAnswers, adraw_records, atake_answers, draw_records, take_answers
from pipeline.api.runs import (
    Checks,
    Plan,
    Preview,
    RehearsedPlan,
    Report,
    RunStatus,
    RunSummary,
    acheck,
    aplan,
    apreview,
    arehearse_plan,
    areplay,
    arun,
    astatus,
    averify,
    check,
    plan,
    preview,
    rehearse_plan,
    replay,
    run,
    status,
    verify,
)

__all__ = [
    "Certification",
    "Checks",
    "Comparison",
    "DataExport",
    "DrawFile",
    "Evaluation",
    "Export",
    "Plan",
    "Preview",
    "RehearsedPlan",
    "Report",
    "RunStatus",
    "RunSummary",
    "TakenAnswers",
    "acertify",
    "acheck",
    "acompare",
    "adraw_records",
    "aevaluate",
    "aexport",
    "aplan",
    "apreview",
    "arehearse_plan",
    "areplay",
    "arun",
    "astatus",
    "atake_answers",
    "averify",
    "certificate_of",
    "certify",
    "check",
    "compare",
    "draw_records",
    "evaluate",
    "export",
    "plan",
    "preview",
    "rehearse_plan",
    "replay",
    "run",
    "status",
    "take_answers",
    "verify",
]
