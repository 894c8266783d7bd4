"""An Outcome as a row of the ledger, and back again without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.records import JSON, Answer, Outcome, Problem, Record, Status, ToolCall, Usage

#: The columns of an outcome. The wide texts come last, so that counting and looking up never read them.
COLUMNS = (
    "seq",
    "key",
    "ordinal",
    "digest",
    "status",
    "problem_code",
    "attempts",
    "repairs",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cache_write_tokens",
    "cost_usd",
    "latency_s",
    "finished_at",
    "vote",
    "line",
    "source",
    "model",
    "request_id",
    "request_digest",
    "copied_from",
    "problem_message",
    "label",
    "fields",
    "answer",
    "record_problem",
)
STATUSES = {str(status): status for status in Status}


def bound(text: str | None) -> str | bytes | None:
    """The text as SQLite can hold it: one with lone surrogates (a file name may have them) becomes a blob."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unbound(value: Any) -> Any:
    """The text that `bound` was given."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def json_text(value: JSON) -> str | None:
    """The value as JSON text; None stays None. Every character is kept: what SQLite cannot hold is escaped."""
    return None if value is None else codec.dumps(value).decode()


def json_value(text: str | None) -> JSON:
    """The value that `json_text` was given."""
    return None if text is None else codec.loads_exact(text)


def to_row(seq: int, outcome: Outcome) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    record, problem, usage = outcome.record, outcome.problem, outcome.usage
    code, message = (problem.code, problem.message) if problem else (None, None)
    return (
        seq,
        bound(record.key),
        record.ordinal,
        record.digest,
        outcome.status.value,
        code,
        outcome.attempts,
        outcome.repairs,
        usage.prompt,
        usage.completion,
        usage.cached,
        usage.reasoning,
        usage.cache_write,
        outcome.cost_usd,
        outcome.latency_s,
        outcome.finished_at,
        outcome.vote,
        record.line,
        bound(record.source),
        bound(outcome.model),
        bound(outcome.request_id),
        outcome.request_digest,
        bound(outcome.copied_from),
        bound(message),
        _label_text(outcome),
        json_text(record.fields),
        answer_text(outcome.answer),
        json_text(_plain_problem(record.problem)),
    )


def to_outcome(row: Sequence[Any]) -> Outcome:
    """The outcome of a row whose columns are COLUMNS."""
    label, rows = _labelled(json_value(row[24]))
    return Outcome(
        record=Record(
            source=unbound(row[18]),
            ordinal=row[2],
            key=unbound(row[1]),
            fields=json_value(row[25]),
            line=row[17],
            digest=row[3],
            problem=_problem(json_value(row[27])),
        ),
        status=STATUSES[row[4]],
        label=label,
        rows=rows,
        problem=None if row[5] is None else Problem(row[5], unbound(row[23])),
        answer=read_answer(row[26]),
        request_digest=row[21],
        attempts=row[6],
        repairs=row[7],
        usage=Usage(row[8], row[9], row[10], row[11], row[12]),
        cost_usd=row[13],
        latency_s=row[14],
        model=unbound(row[19]),
        request_id=unbound(row[20]),
        finished_at=row[15],
        copied_from=unbound(row[22]),
        vote=row[16],
    )


def _label_text(outcome: Outcome) -> str | None:
    """An object for a record that is one row; else a list: what is common to all rows, then each row."""
    if outcome.rows is None or outcome.label is None:
        return json_text(outcome.label)
    return json_text([outcome.label, *outcome.rows])


def _labelled(value: JSON) -> tuple[Mapping[str, JSON] | None, tuple[Mapping[str, JSON], ...] | None]:
    return (value[0], tuple(value[1:])) if isinstance(value, list) else (value, None)


def answer_text(answer: Answer | None) -> str | None:
    """The answer as JSON text; None stays None."""
    if answer is None:
        return None
    return json_text(
        {
            "calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in answer.calls],
            "text": answer.text,
            "refusal": answer.refusal,
            "finish_reason": answer.finish_reason,
        }
    )


def _plain_problem(problem: Problem | None) -> Mapping[str, JSON] | None:
    return None if problem is None else {"code": problem.code, "message": problem.message}


def _problem(value: Mapping[str, Any] | None) -> Problem | None:
    return None if value is None else Problem(value["code"], value["message"])


def read_answer(text: str | None) -> Answer | None:
    """The answer that `answer_text` was given."""
    value = json_value(text)
    if value is None:
        return None
    calls = tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in value["calls"])
    return Answer(calls, value["text"], value["refusal"], value["finish_reason"])
