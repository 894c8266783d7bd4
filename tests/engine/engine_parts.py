"""A task, records and a rig for the engine: plain functions where HTTP and files would be."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pipeline.engine import Asker, AskRules, InterviewContext, Panel
from pipeline.engine.health import Answerer
from pipeline.engine.interview_context import TaskPart
from pipeline.errors import AnswerError, CallbackError, InvalidAnswerError, RefusalError, TruncatedError
from pipeline.limits import Admission, Budget, Gate
from pipeline.records import (
    JSON,
    Answer,
    CallbackContext,
    LabelResult,
    Ping,
    Record,
    Request,
    Response,
    ToolCall,
    Usage,
    ValidCall,
)
from pipeline.stats import Stats


def record(number: int, **fields: JSON) -> Record:
    return Record("in.jsonl", number, f"k{number}", fields or {"text": f"text {number}"}, number + 1, number)


def request(number: int, digest: bytes | None = None) -> Request:
    return Request(
        record=record(number),
        model="m",
        messages=({"role": "user", "content": f"text {number}"},),
        tools=(),
        tool_choice="auto",
        parameters={},
        size_tokens=10,
        digest=digest or number.to_bytes(16, "big"),
    )


def answered(label: str = "good", **facts: Any) -> Response:
    answer = Answer((ToolCall("c1", "set_label", label),), finish_reason="stop")
    return Response(answer, Usage(8, 2), "m", "req", 0.01, **facts)


class FakeTask:
    """The label is the arguments' text. `bad`, `cut` and `no` are what their names say; `boom` breaks the callback."""

    def __init__(self) -> None:
        self.called_back: list[str] = []
        self.repairs = 0

    max_turns = 1
    has_callback = True

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        text = answer.calls[0].arguments
        if text == "bad":
            raise InvalidAnswerError("label: 'bad' is not one of ['good']", code="invalid_label")
        if text == "cut":
            raise TruncatedError
        if text == "no":
            raise RefusalError
        return (ValidCall("set_label", {"label": text}, answer.calls[0]),)

    def build_rows(self, said: Sequence[ValidCall], reply: str | None, record: Record) -> LabelResult:
        return LabelResult({**said[-1].label, **said[-1].extra})

    def next_turn(self, request: Request, answer: Answer, said: Sequence[ValidCall]) -> Request:
        raise NotImplementedError

    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int | None = None) -> Request:
        self.repairs += 1
        more = {"role": "user", "content": str(error)}
        return Request(
            request.record, request.model, (*request.messages, more), (), "auto", {}, 12, b"repaired........"
        )

    async def run_callback(self, said: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
        if said.label["label"] == "boom":
            raise CallbackError("ValueError: boom")
        self.called_back.append(record.key)
        return said


class Rig:
    """An Asker and what stands around it."""

    def __init__(
        self,
        provider: Answerer,
        *,
        concurrency: int = 8,
        probe_max_s: float = 4.0,
        ping: Ping | None = None,
        budget: Budget | None = None,
        task: TaskPart | None = None,
        panel: Panel | None = None,
        **rules: Any,
    ) -> None:
        self.task: Any = task or FakeTask()
        self.gate = Gate(concurrency, probe_max_s=probe_max_s)
        self.admission = Admission(gate=self.gate, budget=budget)
        self.stats = Stats(time.monotonic)
        self.asker = Asker(
            provider,
            InterviewContext(self.task, panel=panel),
            self.admission,
            self.stats,
            rules=AskRules(**rules),
            ping=ping,
            rng=random.Random(1),
        )


async def items(found: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for item in found:
        yield item
