"""A preview: which records it takes, what it shows of them, and how it ends where nobody answers."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline import Settings
from pipeline.errors import InputError, NothingToAskError
from pipeline.facts import Preview
from pipeline.planner import preview
from pipeline.records import Outcome, Problem, Record, Status
from pipeline.show import preview_facts, preview_lines
from pipeline.terminal import width

ROWS = [{"id": f"r{number}", "text": f"text {number}", "right": "ab"[number % 2]} for number in range(300)]


@pytest.fixture
def previewed(tmp_path: Path) -> Any:
    """A preview of some rows at the built-in endpoint, whose labels are the right ones."""

    def look(rows: list[dict[str, Any]] = ROWS, *, key: str = "id", url: str = "rehearsal", **which: Any) -> Preview:
        path = tmp_path / "in.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = Settings(
            input={"path": str(path), "key": key},
            task={"prompt": "Label this: {{ text }}", "labels": {"label": ["a", "b"]}},
            model={"name": "m", "base_url": url},
            rehearsal={"latency_ms": 0, "gold": "right", "accuracy": 1.0},
            output={"dir": str(tmp_path / "run")},
        )
        found = asyncio.run(preview(settings, which.pop("n", 3), **which))
        assert not (tmp_path / "run").exists()
        return found

    return look


def keys_of(found: Preview) -> list[str]:
    return [one.record.key for one in found.outcomes]


def test_the_first_ones_those_of_keys_and_a_sample_that_stays_the_same(previewed: Any) -> None:
    assert keys_of(previewed()) == ["r0", "r1", "r2"]
    assert keys_of(previewed(keys=["r299", "r1"])) == ["r0", "r1", "r2", "r299"], "each once"
    drawn = keys_of(previewed(n=0, sample=20))
    assert len(set(drawn)) == 20
    assert drawn == keys_of(previewed(n=0, sample=20))
    assert {"r0", "r1", "r2"} != set(drawn[:3])
    with pytest.raises(InputError, match=r"no record has the key 'r2999' \(did you mean 'r299'\?\)"):
        previewed(keys=["r2999"])


def test_bad_records_are_shown_as_rejected_and_a_wrong_key_is_an_error(previewed: Any) -> None:
    found = previewed([{"id": "x", "text": ""}, {"text": "no name"}, *ROWS])
    assert [one.problem and one.problem.code for one in found.outcomes] == ["empty_text", "no_key", None, None, None]
    with pytest.raises(NothingToAskError, match="the key field 'idd' is missing"):
        previewed(key="idd")
    with pytest.raises(NothingToAskError, match="no records"):
        previewed([])


def test_the_right_label_stands_beside_the_models(previewed: Any) -> None:
    rows = [ROWS[0], {"id": "w", "text": "t", "right": "c"}, {"id": "n", "text": "u"}]
    found = previewed(rows)
    lines = preview_lines(found)
    assert lines[0].split() == ["key", "label", "gold", "record"]
    assert "≠ c" in lines[2]
    assert "3 of 3 labelled · 1 of 2 match gold" in "\n".join(lines)
    assert [one["gold"] for one in preview_facts(found)["records"]] == [{"label": "a"}, {"label": "c"}, {}]


def test_columns_stand_in_line_and_the_reason_why_there_is_no_label_is_whole() -> None:
    problem = Problem(
        "invalid_label", "'x' is not one of the labels; expected one of these: positive, neutral, negative"
    )
    told = [({"mood": "긍정"}, None), ({"mood": "positive"}, None), (None, problem)]
    outcomes = [
        Outcome(
            Record("in.csv", place, f"r{place}", {"text": "some text"}, place + 2, 0),
            Status.REJECTED if why else Status.LABELLED,
            label=label,
            problem=why,
        )
        for place, (label, why) in enumerate(told)
    ]
    head, *rows = preview_lines(Preview(("mood",), outcomes, 0.0, False))[:4]
    at = [width(line[: line.index("some text")]) for line in rows]
    assert at[0] == at[1] == head.index("record")
    assert f"rejected: invalid_label: {problem.message}  some text" in rows[2]


def test_what_would_be_sent_is_shown_and_nothing_is(previewed: Any) -> None:
    found = previewed(n=2, prompt=True, url="http://127.0.0.1:9/v1")
    told = "\n".join(preview_lines(found))
    assert "== r0  (" in told
    assert "user: Label this: text 1" in told
    assert '"enum":["a","b"]' in told
    assert told.endswith("Nothing was sent.")
    bodies = [one["body"] for one in preview_facts(found)["requests"]]
    assert [body["messages"][-1]["content"] for body in bodies] == ["Label this: text 0", "Label this: text 1"]


def test_a_server_that_is_not_there_ends_it_and_is_named(previewed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        found = previewed(url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
    assert found.outcomes == []
    assert "127.0.0.1" in (found.stopped or "")
