"""Converts an Outcome to a row of the ledger, and back without loss."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from pipeline import codec
from pipeline.errors import InternalError
from pipeline.records import JSON, Answer, Outcome, Problem, Record, Status, ToolCall, Usage

STATUSES = {str(status): status for status in Status}
_TEXT, _MAYBE_TEXT = (str, bytes), (str, bytes, NoneType)
_MAYBE_STR, _MAYBE_NUMBER = (str, NoneType), (int, float, NoneType)
#: The columns of an outcome in the ledger, and the types that each may have when it is read. Texts with lone surrogates
#: are bytes (see `bound`). The wide texts come last, so that counting and looking up never read them.
DEFINITIONS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "seq": ("INTEGER PRIMARY KEY", (int,)),
    "key": ("TEXT NOT NULL", _TEXT),
    "ordinal": ("INTEGER NOT NULL", (int,)),
    "digest": ("INTEGER NOT NULL", (int,)),
    "status": ("TEXT NOT NULL", (str,)),
    "problem_code": ("TEXT", _MAYBE_STR),
    "attempts": ("INTEGER NOT NULL", (int,)),
    "repairs": ("INTEGER NOT NULL", (int,)),
    "prompt_tokens": ("INTEGER NOT NULL", (int,)),
    "completion_tokens": ("INTEGER NOT NULL", (int,)),
    "cached_tokens": ("INTEGER NOT NULL", (int,)),
    "reasoning_tokens": ("INTEGER NOT NULL", (int,)),
    "cache_write_tokens": ("INTEGER NOT NULL DEFAULT 0", (int,)),
    "cost_usd": ("REAL", _MAYBE_NUMBER),
    "latency_s": ("REAL", _MAYBE_NUMBER),
    "finished_at": ("REAL", _MAYBE_NUMBER),
    "line": ("INTEGER NOT NULL", (int,)),
    "source": ("TEXT NOT NULL", _TEXT),
    "model": ("TEXT", _MAYBE_TEXT),
    "request_id": ("TEXT", _MAYBE_TEXT),
    "request_digest": ("BLOB", (bytes, NoneType)),
    "copied_from": ("TEXT", _MAYBE_TEXT),
    "asked_as": ("TEXT", _MAYBE_TEXT),
    "problem_message": ("TEXT", _MAYBE_TEXT),
    "label": ("TEXT", _MAYBE_STR),
    "fields": ("TEXT NOT NULL", (str,)),
    "answer": ("TEXT", _MAYBE_STR),
    "record_problem": ("TEXT", _MAYBE_STR),
}
COLUMNS = tuple(DEFINITIONS)
_TYPES = tuple(types for _, types in DEFINITIONS.values())
_MOST_INTEGER = 2**63 - 1


def bound(text: str | None) -> str | bytes | None:
    """Return the text as SQLite can store it: a text with lone surrogates, as in a file name, becomes a blob."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unbound(value: Any) -> Any:
    """Return the text that `bound` received."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def any_text(value: Any) -> str:
    """Return a text to show, even for a damaged value."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def json_text(value: JSON) -> str | None:
    """Return the value as JSON text; None stays None. No character is lost: those that SQLite refuses are escaped."""
    return None if value is None else codec.dumps(value).decode()


def json_value(text: str | None) -> JSON:
    """Return the value that `json_text` received."""
    return None if text is None else codec.loads_exact(text)


def to_row(seq: int, outcome: Outcome) -> tuple[Any, ...]:
    """Return the values of COLUMNS."""
    record, problem = outcome.record, outcome.problem
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
        *map(_whole, outcome.usage.counts),
        outcome.cost_usd,
        outcome.latency_s,
        outcome.finished_at,
        record.line,
        bound(record.source),
        bound(outcome.model),
        bound(outcome.request_id),
        outcome.request_digest,
        bound(outcome.copied_from),
        bound(outcome.asked_as),
        bound(message),
        _label_text(outcome),
        json_text(record.fields),
        answer_text(outcome.answer),
        json_text(_plain_problem(record.problem)),
    )


def _whole(value: int) -> int:
    """Limit the number to what SQLite can store, because sums of servers' numbers may exceed 64 bits."""
    return max(-_MOST_INTEGER, min(value, _MOST_INTEGER))


def to_outcome(row: Sequence[Any]) -> Outcome:
    """Return the outcome of a row of COLUMNS. A damaged row becomes an outcome without a label that reports it."""
    try:
        return _read(row)
    except Exception as error:  # Whatever a damaged row causes must not affect the other rows.
        return _damaged(row, error)


def damage_of(row: Sequence[Any]) -> str | None:
    """Return what is wrong with a row, or None if it can be read."""
    try:
        _read(row)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _damaged(row: Sequence[Any], error: Exception) -> Outcome:
    seq, key, ordinal = row[0], any_text(row[1]), row[2] if isinstance(row[2], int) else 0
    message = f"its row in the ledger (seq {seq}) is damaged: {type(error).__name__}: {error}"
    return Outcome(
        record=Record(any_text(row[17]), ordinal, key, {}, row[16] if isinstance(row[16], int) else 0, 0),
        status=Status.REJECTED,
        problem=Problem(InternalError.code, message),
    )


def _read(row: Sequence[Any]) -> Outcome:
    if not all(map(isinstance, row, _TYPES)):
        raise TypeError(next(_misfits(row)))
    label, rows = labelled(json_value(row[24]))
    fields = json_value(row[25])
    if not all(isinstance(one, dict) for one in (fields, {} if label is None else label, *(rows or ()))):
        raise TypeError("fields or label are no object")
    return Outcome(
        record=Record(
            source=unbound(row[17]),
            ordinal=row[2],
            key=unbound(row[1]),
            fields=fields,
            line=row[16],
            digest=row[3],
            problem=_problem(json_value(row[27])),
        ),
        status=STATUSES[row[4]],
        label=label,
        rows=rows,
        problem=None if row[5] is None else Problem(row[5], unbound(row[23])),
        answer=read_answer(row[26]),
        request_digest=row[20],
        attempts=row[6],
        repairs=row[7],
        usage=Usage(row[8], row[9], row[10], row[11], row[12]),
        cost_usd=row[13],
        latency_s=row[14],
        model=unbound(row[18]),
        request_id=unbound(row[19]),
        finished_at=row[15],
        copied_from=unbound(row[21]),
        asked_as=unbound(row[22]),
    )


def _misfits(row: Sequence[Any]) -> Iterator[str]:
    for name, value, types in zip(COLUMNS, row, _TYPES, strict=True):
        if not isinstance(value, types):
            yield f"{name} is {repr(value)[:80]}"


def _label_text(outcome: Outcome) -> str | None:
    """Return an object for a record of one row, otherwise a list: the rows' common values, then each row."""
    if outcome.rows is None or outcome.label is None:
        return json_text(outcome.label)
    return json_text([outcome.label, *outcome.rows])


def labelled(value: JSON) -> tuple[Mapping[str, JSON] | None, tuple[Mapping[str, JSON], ...] | None]:
    """Return a label and the rows that have it in common; None if the record is one row."""
    return (value[0], tuple(value[1:])) if isinstance(value, list) else (value, None)


def answer_text(answer: Answer | None, *, whole: bool = False) -> str | None:
    """Return the answer as JSON text; None stays None. Only with `whole` does it contain what the next turn needs."""
    if answer is None:
        return None
    items = {"items": answer.items} if whole and answer.items else {}
    return json_text(
        {
            **items,
            "calls": [
                {"id": call.id, "name": call.name, "arguments": call.arguments}
                | ({"readings": call.readings} if call.readings else {})
                for call in answer.calls
            ],
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
    """Return the answer that `answer_text` received."""
    value = json_value(text)
    if value is None:
        return None
    calls = tuple(
        ToolCall(call["id"], call["name"], call["arguments"], tuple(call.get("readings", ())))
        for call in value["calls"]
    )
    items = tuple(value.get("items", ()))
    return Answer(calls, value["text"], value["refusal"], value["finish_reason"], items)
