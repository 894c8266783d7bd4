"""What a check says of all the records of an input, before a cent is spent."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import Settings
from pipeline.facts import Check
from pipeline.planner import check

FIRST = [{"id": str(number), "text": f"text {number}", "gold": "ab"[number % 2]} for number in range(500)]


@pytest.fixture
def looked_at(tmp_path: Path) -> Any:
    """The checks of an input, by name."""

    def look(lines: list[Any], *, prompt: str = "{{ text }}", **tables: dict[str, Any]) -> dict[str, Check]:
        path = tmp_path / "in.jsonl"
        path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
        settings = Settings(
            input={"path": str(path), "key": "id"} | tables.pop("input", {}),
            task={"prompt": prompt, "labels": {"label": ["a", "b"]}} | tables.pop("task", {}),
            model={"name": "gpt-6-luna", "base_url": "rehearsal"},
            output={"dir": str(tmp_path / "run")} | tables.pop("output", {}),
            **tables,
        )
        return {one.name: one for one in asyncio.run(check(settings, online=False))}

    return look


def test_all_records_are_counted_and_priced(looked_at: Any) -> None:
    found = looked_at([*FIRST, FIRST[0], {"id": "x", "text": "text 1"}], rehearsal={"gold": "gold"})
    assert "502 records, all readable" in found["records"].detail
    assert found["key"].ok is None
    assert found["key"].detail.startswith("1 of 502 records repeat a key")
    assert found["tokens"].detail.endswith("; 2 ask the same as another")
    assert "$0.0" in found["tokens"].detail
    assert found["gold"].detail == "'gold' holds a 251, b 250, (empty) 1"
    assert found["task"].detail == "the label columns are label (a, b)"
    longer = looked_at([*FIRST[:250], *({"id": f"l{n}", "text": "x" * 4_000} for n in range(250))])
    assert int(longer["tokens"].detail.split()[1].replace(",", "")) > 250 * 1_000, "not only the first ones count"


@pytest.mark.parametrize(
    ("lines", "tables", "name", "ok", "words"),
    [
        ([*FIRST, *["torn"] * 5], {}, "records", None, "5 of 505 records cannot be read; for example: "),
        ([*FIRST, *["torn"] * 9], {}, "records", False, "9 of 509 records cannot be read"),
        ([FIRST[0], *["torn"] * 4], {}, "records", False, "4 of 5 records cannot be read"),
        ([*FIRST, {"id": "e", "text": " "}], {}, "prompt", None, "1 of 501 records will be rejected; empty_text 1: "),
        (FIRST, {"prompt": "{{ txt }}"}, "prompt", False, "500 of 500 records will be rejected; render_error 500: "),
        (FIRST, {"prompt": "Label this."}, "prompt", False, "names no field"),
        (FIRST, {"input": {"key": "ID"}}, "key", False, "500 of 500 records have no key .*did you mean 'id'"),
        (FIRST, {"task": {"labels": {"label": ["first label", "b"]}}}, "task", False, "placeholder 'first label'"),
        (FIRST, {"task": {"labels": {"label": ["a"]}}, "rehearsal": {"gold": "gold"}}, "gold", None, "no label .*: b"),
        ([*FIRST, {"id": "z", "text": "t", "late": 1}], {"output": {"columns": ["late"]}}, "columns", True, "late"),
        ([], {}, "records", False, "the input has no records"),
    ],
)
def test_what_a_late_record_can_spoil_is_found(
    looked_at: Any, lines: list[Any], tables: dict[str, Any], name: str, ok: bool | None, words: str
) -> None:
    found = looked_at(lines, **tables)[name]
    assert found.ok is ok
    assert re.search(words, found.detail), found.detail


def test_what_the_environment_overrides_is_said(looked_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set by" not in looked_at(FIRST)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    monkeypatch.setenv("LABELPIPE_LIMITS__CONCURRENCY", "3")
    assert "LABELPIPE_LIMITS__CONCURRENCY" in looked_at(FIRST)["set by"].detail
