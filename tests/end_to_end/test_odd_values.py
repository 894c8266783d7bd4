"""Values that fit nowhere: the run ends with one row a record, and verify agrees."""

from __future__ import annotations

import copy
import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import RunOptions, Settings, run, verify
from pipeline.providers import ClientOptions, HttpProvider
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


def settings(folder: Path, *, prompt: str = "{{ text }}", output: Any = None, limits: Any = None) -> Settings:
    return Settings(
        input={"path": str(folder / "in.jsonl"), "key": "id"},
        task={"prompt": prompt, "labels": {"label": ["good", "bad"]}},
        model={"name": "m", "base_url": "http://127.0.0.1:9/v1"},
        limits=limits or {},
        output={"dir": str(folder / "run"), "formats": ["csv", "jsonl"], **(output or {})},
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

    summary = run(settings(tmp_path), RunOptions(quiet=True, provider=provider))
    assert summary.ended == "complete"
    assert summary.labelled >= 20
    assert set(summary.problems) == {"internal_error"}
    assert rows_of(tmp_path) == sorted(keys)
    assert verify(tmp_path / "run").ok
    log = (tmp_path / "run" / "run.log").read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: what may stand in any field of an answer, or of a record
VALUES: list[Any] = [
    None, True, -1, 3.5, 1e308, 2**63, 2**64 - 1, "", "\x00a", "\ud800", "e\x1b[31m", "9" * 400, [], {}, [None], [{}],
    {"a": {}}, nested(150), nested(300), [{"type": "text", "text": {"a": 1}}], '{"label": "good"}', "x" * 50_000,
]  # fmt: skip
COMPLETION: dict[str, Any] = {
    "id": "c",
    "model": "m",
    "choices": [
        {
            "message": {
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "set_label", "arguments": '{"label":"good"}'}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
HEADERS = [b"", b"\xff\xfe", b"1e400", b"nan", b"9" * 400, b"Mon, 01 Jan 0000 00:00:00 GMT", b"1.5.5",
           b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59"]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field, list and object within."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        yield from places(one, (*path, step))


def changed(path: tuple[Any, ...], value: Any) -> bytes:
    """The completion with this value in that place."""
    whole = copy.deepcopy(COMPLETION)
    at: Any = whole
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return json.dumps(whole).encode()


def test_each_odd_value_in_each_field_of_a_completion_is_seen_at_its_border(tmp_path: Path) -> None:
    """No answer becomes an `internal_error`: each value is checked where it comes in."""
    bodies = [changed(path, value) for path in places(COMPLETION) for value in VALUES]
    names = (b"x-request-id", b"x-ratelimit-limit-requests", b"x-ratelimit-reset-tokens", b"retry-after")
    headers = itertools.cycle(itertools.product(names, HEADERS))
    lines = [json.dumps({"id": f"r{number}", "text": f"text {number}"}) for number in range(2 * len(bodies))]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chat = HttpProvider(ClientOptions(base_url="http://127.0.0.1:9/v1", api_key="sk-test-0123456789"))
    asking = 0

    async def post(*_: Any) -> tuple[int, Any, bytes]:
        # Between two odd answers a good one: that many in a row would be the server's state, and not these records'.
        odd, good = divmod(asking, 2)
        return 200, [next(headers)], json.dumps(COMPLETION).encode() if good else bodies[odd]

    chat.client._wire.post = post  # type: ignore[method-assign]

    async def provider(asked: Request) -> Response:
        nonlocal asking
        asking = asked.record.ordinal
        return await chat(asked)

    limits = {"max_attempts": 1, "max_repairs": 0, "stop_rejected": 1.0, "concurrency": 4}
    summary = run(settings(tmp_path, limits=limits), RunOptions(quiet=True, provider=provider))
    assert summary.ended == "complete", summary.reason
    assert "internal_error" not in summary.problems
    assert summary.labelled > len(bodies)
    assert rows_of(tmp_path) == sorted(f"r{number}" for number in range(2 * len(bodies)))


def test_each_odd_value_in_each_field_of_a_record_is_carried_or_refused(tmp_path: Path) -> None:
    names = ["id", "text", "n", "label", "key", "status", "\x00k", "\ud800k", "", "a" * 500]
    lines = []
    for number, (name, value) in enumerate(itertools.product(names, [*VALUES, float("nan"), 10**300, 10**4000])):
        lines.append(json.dumps({"id": f"r{number}", "text": f"text {number}", "n": 1, name: value}))
        lines.append(json.dumps({"id": f"good{number}", "text": "good", "n": 1}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def provider(_: Request) -> Response:
        return Response(GOOD, Usage(1, 1), "m", "req")

    prompt = (
        "{{ text }} {{ n }} {{ record | tojson }} {{ label | default('') }} {% for one in text %}{{ one }}{% endfor %}"
    )
    output = {"formats": ["csv", "jsonl", "parquet", "sql"], "sql": {"url": f"sqlite:///{tmp_path}/o.db", "table": "t"}}
    chosen = settings(tmp_path, prompt=prompt, limits={"stop_rejected": 1.0}, output=output)
    summary = run(chosen, RunOptions(quiet=True, provider=provider))
    assert summary.ended == "complete", summary.reason
    assert "internal_error" not in summary.problems
    assert summary.labelled + summary.rejected == len(lines)
    report = verify(tmp_path / "run")
    assert report.ok, report.lines()
    assert report.counts["rows_in"] == len(lines)


def test_a_row_that_no_file_can_hold_is_replaced_in_the_ledger_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in the making of one row: at its first writing, and where a killed session has left it."""
    lines = [json.dumps({"id": f"r{number}", "text": "x"}) for number in range(10)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    make = projection.RowFormat.block

    def broken(row_format: projection.RowFormat, outcomes: Any) -> bytes:
        if any(outcome.record.key == "r3" and outcome.label for outcome in outcomes):
            raise RecursionError("maximum recursion depth exceeded")
        return make(row_format, outcomes)

    async def provider(asked: Request) -> Response:
        return Response(GOOD, Usage(1, 1), "m", "req")

    def labelled() -> Any:
        return run(settings(tmp_path), RunOptions(quiet=True, provider=provider))

    assert labelled().exit_code == 0
    for name in ("labels.csv", "labels.jsonl"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.setattr(projection.RowFormat, "block", broken)
    again = labelled()
    assert (again.labelled, again.problems, again.calls) == (9, {"internal_error": 1}, 0)
    assert rows_of(tmp_path) == [f"r{number}" for number in range(10)]
    assert verify(tmp_path / "run").ok
