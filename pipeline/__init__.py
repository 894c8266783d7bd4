"""labelpipe turns a large file of records into a CSV of labels that you can trust, with one function call per record.

    from labelpipe import run

    summary = run("config/sentiment.toml")

`await arun(...)` does the same for a program with an event loop of its own. `check`, `preview`, `plan`, `replay`,
`rename`, `status`, `verify`, `evaluate`, `export`, `write_report`, and `watch` have such forms too. Names are loaded at
first use, so that `labelpipe --help` is fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import *  # most of the public names, each with its type
    from pipeline.errors import LabelpipeError
    from pipeline.facts import Check, Tier
    from pipeline.records import Answer, CallbackContext, Outcome, Record, Request, Response, Status, ToolCall, Usage
    from pipeline.runner import RunOptions
    from pipeline.settings import Settings
    from pipeline.version import __version__

#: The packages of the public names that are not in `api`.
_ROOMS = {
    "errors": "LabelpipeError",
    "facts": "Check Tier",
    "records": "Answer CallbackContext Outcome Record Request Response Status ToolCall Usage",
    "runner": "RunOptions",
    "settings": "Settings",
    "version": "__version__",
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names.split()}

__all__ = [
    "Answer",
    "Baseline",
    "CallbackContext",
    "Certification",
    "Check",
    "Checks",
    "ClassShares",
    "Comparison",
    "DataExport",
    "DrawFile",
    "Evaluation",
    "Export",
    "LabelpipeError",
    "Merged",
    "Outcome",
    "PageReview",
    "Plan",
    "Preview",
    "Record",
    "RecordView",
    "RehearsedPlan",
    "Renamed",
    "Report",
    "ReportFile",
    "Request",
    "Response",
    "RunOptions",
    "RunStatus",
    "RunSummary",
    "Settings",
    "Status",
    "TakenAnswers",
    "Tier",
    "ToolCall",
    "Trial",
    "Usage",
    "__version__",
    "abaseline",
    "acertify",
    "acheck",
    "aclass_shares",
    "acompare",
    "adraw_records",
    "aevaluate",
    "aexport",
    "amerge",
    "aplan",
    "apreview",
    "arehearse_plan",
    "arename",
    "areplay",
    "areview_page",
    "arun",
    "ashow_record",
    "astatus",
    "atake_answers",
    "atry_config",
    "averify",
    "awatch",
    "awrite_report",
    "baseline",
    "certificate_of",
    "certify",
    "check",
    "class_shares",
    "compare",
    "draw_records",
    "evaluate",
    "export",
    "merge",
    "plan",
    "preview",
    "rehearse_plan",
    "rename",
    "replay",
    "review_page",
    "run",
    "show_record",
    "status",
    "take_answers",
    "try_config",
    "verify",
    "watch",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pipeline.{_HOME.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return list(__all__)
