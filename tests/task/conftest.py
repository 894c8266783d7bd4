from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Answer, Record, ToolCall
from pipeline.task import Task, TaskOptions, build_task


@pytest.fixture
def make_record() -> Callable[..., Record]:
    def make(**fields: Any) -> Record:
        return Record(source="in.jsonl", ordinal=0, key="k", fields=fields or {"text": "fine"}, line=1, digest=0)

    return make


@pytest.fixture
def record(make_record: Callable[..., Record]) -> Record:
    return make_record(text="fine")


@pytest.fixture
def make_task() -> Callable[..., Task]:
    """A task with the sample's labels, where no other form is given."""

    def make(**changes: Any) -> Task:
        given: dict[str, Any] = {"model": "m", "prompt": "Label: {{ text }}"} | changes
        if not {"labels", "function", "python"} & given.keys():
            given["labels"] = {"label": ["positive", "negative", "neutral"]}
        return build_task(TaskOptions(**given))

    return make


@pytest.fixture
def make_answer() -> Callable[..., Answer]:
    """An answer with one call for each text of arguments."""

    def make(*arguments: str, name: str = "set_label", **more: Any) -> Answer:
        calls = tuple(ToolCall(f"id{place}", name, text) for place, text in enumerate(arguments))
        return Answer(calls=calls, **{"finish_reason": "tool_calls", **more})

    return make


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes a module of the user's into the config's folder, and gives that folder."""
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source: str, name: str = "mytools", folder: Path = tmp_path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return folder

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
