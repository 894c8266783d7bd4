"""labelpipe: a large file of records in, one function call a record, a CSV that can be trusted out.

    from pipeline import Settings, run

    summary = run(Settings.load("config/sentiment.toml"))

`await arun(settings)` is the same for a program with an event loop of its own. Names are loaded at first use, so that
`labelpipe --help` does not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from pipeline.records import Answer, Call, Outcome, Record, Request, Response, Status, ToolCall, Usage
    from pipeline.runner import Tier, Wishes, arun, check, plan, preview, rehearse_plan, replay, run, status, verify
    from pipeline.settings import Settings
    from pipeline.stats import RunSummary

__all__ = [
    "Answer",
    "Call",
    "Outcome",
    "Record",
    "Request",
    "Response",
    "RunSummary",
    "Settings",
    "Status",
    "Tier",
    "ToolCall",
    "Usage",
    "Wishes",
    "arun",
    "check",
    "plan",
    "preview",
    "rehearse_plan",
    "replay",
    "run",
    "status",
    "verify",
]

_HOME = {
    **dict.fromkeys(
        ["Answer", "Call", "Outcome", "Record", "Request", "Response", "Status", "ToolCall", "Usage"], "records"
    ),
    **dict.fromkeys(
        ["Tier", "Wishes", "arun", "check", "plan", "preview", "rehearse_plan", "replay", "run", "status", "verify"],
        "runner",
    ),
    "Settings": "settings",
    "RunSummary": "stats",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pipeline.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
