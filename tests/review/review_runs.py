"""A run of ninety records that was labelled inside the process, for people to review."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from pipeline import Answer, Request, Response, RunOptions, Settings, ToolCall, Usage, run

_T = TypeVar("_T")
TOPICS = ["billing", "login", "other"]
COUNT = 90


def label_of(number: int) -> dict[str, Any]:
    """What the model says of a record; of every tenth nothing that can be read."""
    if number % 10 == 7:
        return {"topic": "nonsense", "urgency": 9, "confidence": 0}
    return {"topic": TOPICS[number % 3], "urgency": number % 4 + 1, "confidence": number % 5 / 4}


async def answer(request: Request) -> Response:
    label = label_of(int(request.record.fields["n"]))
    return Response(Answer((ToolCall("c", "set_label", json.dumps(label)),)), Usage(10, 5), "model")


def settings(folder: Path, **tables: Any) -> Settings:
    """The config of a run whose records have a name, a number and a text."""
    names = {"type": "object", "required": ["topic", "urgency", "confidence"], "additionalProperties": False}
    properties = {
        "topic": {"type": "string", "enum": TOPICS},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 4},
        "confidence": {"type": "number"},
    }
    config: dict[str, Any] = {
        "input": {"path": str(folder / "in.csv"), "key": "id"},
        "output": {"dir": str(folder / "run")},
        "model": {"name": "model", "strict": False},
        "task": {
            "prompt": "{{ text }}",
            "function": {"name": "set_label", "parameters": {**names, "properties": properties}},
        },
        "limits": {"max_repairs": 0},
    }
    for name, table in tables.items():
        config[name] = {**config.get(name, {}), **table}
    return Settings.model_validate(config)


def write_input(folder: Path, count: int = COUNT) -> None:
    rows = [[f"T{n:03}", n, f'=text {n}; with, "signs"'] for n in range(count)]
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "n", "text"], *rows])


def labelled_run(folder: Path, count: int = COUNT, **tables: Any) -> Path:
    write_input(folder, count)
    again(folder, **tables)
    return folder / "run"


def again(folder: Path, options: RunOptions | None = None, **tables: Any) -> Any:
    return run(settings(folder, **tables), options or RunOptions(provider=answer, quiet=True))


def read(path: Path, **how: Any) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, **how))


def write(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8", **how: Any) -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


def do(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)
