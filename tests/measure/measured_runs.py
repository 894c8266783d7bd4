"""Runs whose labels are known: the built-in endpoint says what stands in the record's fields `said_...`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import RunOptions, Settings, run

Row = dict[str, Any]


def labelled(
    folder: Path,
    records: Sequence[Row],
    properties: Mapping[str, Any],
    *,
    name: str = "run",
    key: str | None = "id",
    **task: Any,
) -> Path:
    """The folder of a run in which each label field has what its record's `said_...` says."""
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
    settings = Settings(
        input={"path": str(folder / "in.jsonl"), "key": key},
        task={"prompt": "{{ text }}", "function": {"name": "judge", "parameters": schema}, "dedupe": False, **task},
        model={"name": "gpt-6-luna", "base_url": "rehearsal", "strict": False},
        rehearsal={"latency_ms": 0, "accuracy": 1.0, "gold": {field: f"said_{field}" for field in properties}},
        output={"dir": str(folder / name)},
    )
    run(settings, RunOptions(quiet=True))
    return folder / name


def listed(*values: Any) -> Mapping[str, Any]:
    """The schema of one of these values."""
    kinds = {str: "string", int: "integer", bool: "boolean"}
    return {"type": kinds[type(values[0])], "enum": list(values)}


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A file with this text."""
    path.write_text(text, encoding=encoding)
    return path
