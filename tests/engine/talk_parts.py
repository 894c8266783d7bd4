"""Conversations for the engine: a task, a ledger of kept answers, and an asker whose provider goes through a script."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine_parts import FakeTask, request

from pipeline.engine import Asker, AskRules, InterviewContext, Journal
from pipeline.errors import AnswerError, CallbackError, InvalidAnswerError, StoreError, UnfinishedError
from pipeline.limits import Admission, Gate
from pipeline.records import (
    Answer,
    CallbackContext,
    LabelResult,
    Outcome,
    Record,
    Request,
    Response,
    SavedAnswer,
    ToolCall,
    Usage,
    ValidCall,
)
from pipeline.stats import Stats


class TalkTask(FakeTask):
    """Calls are named by their arguments: `bad` fits nothing, `boom` breaks the callback.

    `log` says in which order things were done.
    """

    def __init__(self, log: list[str], max_turns: int = 3) -> None:
        super().__init__()
        self.max_turns = max_turns
        self.log = log
        self.keys: list[str] = []

    def parse_calls(self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()) -> tuple[ValidCall, ...]:
        if any(call.arguments == "bad" for call in answer.calls):
            raise InvalidAnswerError("bad")
        return tuple(ValidCall(call.name, {"label": call.arguments}, call) for call in answer.calls)

    def build_rows(self, said: Sequence[ValidCall], reply: str | None, record: Record) -> LabelResult:
        if reply is None and self.max_turns > 1:
            raise UnfinishedError
        return LabelResult({"said": [f"{one.label['label']}={one.result}" for one in said], "reply": reply})

    def next_turn(self, request: Request, answer: Answer, said: Sequence[ValidCall]) -> Request:
        told = {"role": "tool", "content": ",".join(str(one.result) for one in said)}
        return replace(request, messages=(*request.messages, told), digest=f"{len(request.messages):016}".encode())

    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int | None = None) -> Request:
        assert base is not None
        return replace(request, messages=(*request.messages[:base], {"role": "user", "content": "again"}))

    async def run_callback(self, said: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
        self.keys.append(call.idempotency_key)
        self.log.append(f"callback {said.label['label']}")
        if said.label["label"] == "boom":
            raise CallbackError("boom")
        return replace(said, result=f"result {call.turn}")


@dataclass
class Ledger:
    """What the journal writes to: the latest of each turn. It fails as often as it is told to."""

    log: list[str] = field(default_factory=list)
    turns: dict[tuple[str, int], SavedAnswer] = field(default_factory=dict)
    writes: list[int] = field(default_factory=list)
    written: list[SavedAnswer] = field(default_factory=list)
    failures: int = 0

    async def keep(self, turns: Sequence[SavedAnswer]) -> None:
        await asyncio.sleep(0.002)
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        self.writes.append(len(turns))
        self.written += turns
        for turn in turns:
            self.log.append(f"kept {turn.number} with {len(turn.results)}")
            self.turns[turn.key, turn.number] = turn

    def of(self, key: str = "k0") -> list[SavedAnswer]:
        return [turn for (name, _), turn in sorted(self.turns.items()) if name == key]


def said(*arguments: str, text: str | None = None, usage: Usage | None = None, name: str = "req") -> Response:
    calls = tuple(ToolCall(f"c{place}", "set_label", one) for place, one in enumerate(arguments))
    return Response(Answer(calls, text, finish_reason="stop"), usage or Usage(8, 2), "m", name, 0.01)


@dataclass
class Stage:
    """An asker with a journal, and a provider that goes through `steps`."""

    steps: Iterator[Response | Exception]
    ledger: Ledger = field(default_factory=Ledger)
    saved: Mapping[str, Sequence[SavedAnswer]] = field(default_factory=dict)
    max_turns: int = 3
    rules: Mapping[str, Any] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)

    has_callback: bool = True
    callbacks: bool = True
    wait_s: float = 0.01

    def __post_init__(self) -> None:
        self.task = TalkTask(self.ledger.log, self.max_turns)
        self.task.has_callback = self.has_callback
        self.gate = Gate(4)
        self.journal = Journal(self.ledger.keep, self.gate)
        self.context = InterviewContext(self.task, run_id="run", callbacks=self.callbacks)
        rules = AskRules(**{"max_repairs": 1, **self.rules})
        admission = Admission(gate=self.gate)
        self.asker = Asker(
            self._provide,
            self.context,
            admission,
            Stats(time.monotonic),
            rules=rules,
            journal=self.journal,
            rng=random.Random(1),
        )

    async def _provide(self, asked: Request) -> Response:
        self.asked.append(asked)
        self.ledger.log.append("call")
        await asyncio.sleep(self.wait_s)
        step = next(self.steps)
        if isinstance(step, Exception):
            raise step
        return step

    async def ask(self) -> Outcome:
        return await self.asker.ask(request(0), self.saved.get("k0", ()))
