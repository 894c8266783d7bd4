"""Outcomes for the store's tests, and strategies that make any."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from pipeline.records import Answer, Outcome, Problem, Record, Status, ToolCall, Usage
from pipeline.store import Ledger, MatchCounts


def joined(*characters: str) -> str:
    """The text, with pairs of surrogates made into their character, as JSON does."""
    return "".join(characters).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


CHARACTERS = (
    st.characters(codec="utf-8")
    | st.sampled_from("\",;\n\r\0=+-@\t\\'이😀\ufeff")
    | st.sampled_from(["\ud800", "\udfff"])
)
#: Texts with everything that has ever broken a CSV in them, lone surrogates too (`st.text` would leave them out).
TEXTS = st.lists(CHARACTERS, max_size=12).map(lambda characters: joined(*characters))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def record(number: int, **fields: Any) -> Record:
    """The record with this ordinal; its key is `r<number>`."""
    fields = fields or {"id": f"r{number}", "text": f"text {number}"}
    return Record("data/in.jsonl", number, f"r{number}", fields, number + 1, 1000 + number)


def labelled(
    number: int, label: str | dict[str, Any] = "positive", *, fields: dict[str, Any] | None = None, **more: Any
) -> Outcome:
    """A labelled outcome that cost 10 + 2 tokens."""
    values: dict[str, Any] = {
        "label": label if isinstance(label, dict) else {"label": label},
        "answer": Answer((ToolCall("c1", "label", f'{{"label":"{label}"}}'),), None, None, "stop"),
        "request_digest": number.to_bytes(16, "big"),
        "attempts": 1,
        "usage": Usage(10, 2, 4, 1, 3),
        "cost_usd": 0.5,
        "model": "gpt-6-luna",
    }
    return Outcome(record(number, **(fields or {})), Status.LABELLED, **(values | more))


def unlabelled(number: int, code: str = "timeout", status: Status = Status.FAILED, **more: Any) -> Outcome:
    """A failed (or rejected) outcome."""
    return Outcome(record(number), status, problem=Problem(code, f"no label: {code}"), **({"attempts": 6} | more))


async def match(ledger: Ledger, records: Sequence[Record], *, keep: bool = False, trust: bool = True) -> MatchCounts:
    """Match the outcomes with an input of these records, by name and content alone; gives what was found."""
    await ledger.match_begin()
    await ledger.match_add(records, trust=trust)
    await ledger.match_by_content(trust=trust)
    found = await ledger.match_counts()
    await ledger.match_apply(keep=keep)
    return found


def read_csv(path: Path) -> list[dict[str, str]]:
    """The file as a strict reader sees it."""
    with io.StringIO(path.read_bytes().decode(), newline="") as text:
        return list(csv.DictReader(text, strict=True))


OUTCOMES = st.builds(
    Outcome,
    record=st.builds(
        Record,
        source=TEXTS,
        ordinal=st.integers(0, 2**62),
        key=TEXTS,
        fields=st.dictionaries(TEXTS, VALUES, max_size=4),
        line=st.integers(0, 2**62),
        digest=st.integers(-(2**63), 2**63 - 1),
        problem=st.none() | st.builds(Problem, st.sampled_from(["bad_json", "bad_row"]), TEXTS),
    ),
    status=st.sampled_from(Status),
    label=st.none() | st.dictionaries(TEXTS, VALUES, max_size=3),
    problem=st.none() | st.builds(Problem, st.sampled_from(["timeout", "refused"]), TEXTS),
    answer=st.none()
    | st.builds(
        Answer,
        calls=st.lists(st.builds(ToolCall, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple),
        text=st.none() | TEXTS,
        refusal=st.none() | TEXTS,
        finish_reason=st.none() | TEXTS,
    ),
    request_digest=st.none() | st.binary(min_size=16, max_size=16),
    attempts=st.integers(0, 99),
    repairs=st.integers(0, 9),
    usage=st.builds(Usage, *[st.integers(0, 2**40)] * 5),
    cost_usd=st.none() | st.floats(0, 1e6),
    latency_s=st.floats(0, 1e6),
    model=st.none() | TEXTS,
    request_id=st.none() | TEXTS,
    finished_at=st.floats(0, 1e10),
    copied_from=st.none() | TEXTS,
)
