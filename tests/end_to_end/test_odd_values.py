"""Values that fit nowhere: the run ends with one row a record, and verify agrees."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import Settings, Wishes, run, verify
from pipeline.records import Answer, Request, Response, ToolCall, Usage
from pipeline.store import projection

GOOD = Answer((ToolCall("c", "set_label", '{"label": "good"}'),))
#: answers of a provider of the user's own, of which no type is checked by anybody
ODD: dict[str, Any] = {
    "usage": Response(GOOD, Usage(2**70, 10**40), "m", "req"),
    "model": Response(GOOD, Usage(1, 1), {"name": ["m"]}, "req"),  # type: ignore[arg-type]
    "request_id": Response(GOOD, Usage(1, 1), "m", ["a", "b"]),  # type: ignore[arg-type]
    "latency": Response(GOOD, Usage(1, 1), "m", "req", latency_s="soon"),  # type: ignore[arg-type]
    "arguments": Response(Answer((ToolCall("c", "set_label", {"label": "good"}),)), Usage(1, 1), "m"),  # type: ignore[arg-type]
    "calls": Response(Answer((None, 3)), Usage(1, 1), "m"),  # type: ignore[arg-type]
    "answer": Response(None, Usage(1, 1), "m"),  # type: ignore[arg-type]
    "nothing": None,
}


def settings(folder: Path) -> Settings:
    return Settings(
        input={"path": str(folder / "in.jsonl"), "key": "id"},
        task={"prompt": "{{ text }}", "labels": {"label": ["good", "bad"]}},
        model={"name": "m", "base_url": "http://127.0.0.1:9/v1"},
        output={"dir": str(folder / "run"), "formats": ["csv", "jsonl"]},
    )


def rows_of(folder: Path) -> list[str]:
    """The keys in labels.csv and failed.csv."""
    found: list[str] = []
    for name, key in (("labels.csv", "id"), ("failed.csv", "key")):
        with (folder / "run" / name).open(encoding="utf-8", newline="") as file:
            found += [row[key] for row in csv.DictReader(file)]
    return sorted(found)


def test_odd_answers_of_a_provider_are_their_records_alone(tmp_path: Path) -> None:
    keys = [*ODD, *(f"r{number}" for number in range(20))]
    lines = [json.dumps({"id": key, "text": key}) for key in keys]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def provider(asked: Request) -> Response:
        return ODD.get(asked.record.key, Response(GOOD, Usage(1, 1), "m", "req"))  # type: ignore[no-any-return]

    summary = run(settings(tmp_path), Wishes(quiet=True, provider=provider))
    assert summary.ended == "complete"
    assert summary.labelled >= 20
    assert set(summary.problems) == {"internal_error"}
    assert rows_of(tmp_path) == sorted(keys)
    assert asyncio.run(verify(tmp_path / "run")).ok
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log


def test_a_row_that_no_file_can_hold_is_replaced_in_the_ledger_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in the making of one row: at its first writing, and where a killed session has left it."""
    lines = [json.dumps({"id": f"r{number}", "text": "x"}) for number in range(10)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make = projection.Look.block

    def broken(look: projection.Look, outcomes: Any) -> bytes:
        if any(outcome.record.key == "r3" and outcome.label for outcome in outcomes):
            raise RecursionError("maximum recursion depth exceeded")
        return make(look, outcomes)

    async def provider(asked: Request) -> Response:
        return Response(GOOD, Usage(1, 1), "m", "req")

    def labelled() -> Any:
        return run(settings(tmp_path), Wishes(quiet=True, provider=provider))

    assert labelled().exit_code == 0
    for name in ("labels.csv", "labels.jsonl"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.setattr(projection.Look, "block", broken)
    again = labelled()
    assert (again.labelled, again.problems, again.calls) == (9, {"internal_error": 1}, 0)
    assert rows_of(tmp_path) == [f"r{number}" for number in range(10)]
    assert asyncio.run(verify(tmp_path / "run")).ok
