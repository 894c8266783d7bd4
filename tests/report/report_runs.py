"""Runs inside the test's own process, whose model is a function."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import Answer, Request, Response, RunOptions, RunSummary, Settings, ToolCall, Usage, run

#: Records that would do harm if a page took them for anything but text.
HOSTILE = (
    "<script>document.title = 'owned'</script><img src=http://198.51.100.7/x onerror=\"document.title='owned'\">",
    "=cmd|' /C calc'!A0",
    "long " * 40_000,
    "שלום \u202ereversed\u202c end",
    "control \x1b[31m \x07 end",
    "</pre></table></style><style>body{display:none}</style>{{ 7 * 7 }}{% raw %}",
)


async def model(request: Request) -> Response:
    """Finds every text good but those in which it is asked to refuse."""
    text = str(request.messages[-1]["content"])
    usage = Usage(120, 9, cached=60)
    if "refuse" in text:
        return Response(Answer(refusal="I <b>cannot</b> do that"), usage, request.model)
    call = ToolCall("call-1", request.tools[0]["function"]["name"], json.dumps({"mood": "good"}))
    return Response(Answer(calls=(call,)), usage, request.model, latency_s=0.25, cost_usd=0.001)


def settings_of(folder: Path, texts: Sequence[str], **more: Any) -> Settings:
    """A run of these texts in `folder`/run."""
    lines = [json.dumps({"id": f"<k{at}>", "text": text}) for at, text in enumerate(texts)]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given: dict[str, Any] = {
        "input": {"path": str(folder / "in.jsonl"), "key": "id"},
        "output": {"dir": str(folder / "run"), **more.pop("output", {})},
        "task": {"prompt": "Mood? {{ text }}", "labels": {"mood": ["good", "<b>bad</b>"]}},
        "model": {"name": "m", "base_url": "http://127.0.0.1:9/v1", "headers": {"X-Token": "verysecret123"}},
    }
    return Settings(**{**given, **more})


def run_of(folder: Path, texts: Sequence[str] = HOSTILE, **more: Any) -> RunSummary:
    """The summary of that run."""
    return run(settings_of(folder, texts, **more), RunOptions(quiet=True, provider=model))
