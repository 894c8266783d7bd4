"""Defines what all interviews of a session share: the task, and the keys of callback calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline import codec
from pipeline.engine.panel import Panel
from pipeline.errors import AnswerError
from pipeline.records import Answer, CallbackContext, LabelResult, Record, Request, ValidCall


class TaskPart(Protocol):
    """What the engine needs of a task."""

    @property
    def max_turns(self) -> int: ...
    @property
    def has_callback(self) -> bool: ...
    def parse_calls(
        self, answer: Answer, record: Record, before: Sequence[ValidCall] = ()
    ) -> tuple[ValidCall, ...]: ...
    def build_rows(self, valid_calls: Sequence[ValidCall], reply: str | None, record: Record) -> LabelResult: ...
    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int) -> Request: ...
    def next_turn(self, request: Request, answer: Answer, valid_calls: Sequence[ValidCall]) -> Request: ...
    async def run_callback(self, valid_call: ValidCall, record: Record, call: CallbackContext) -> ValidCall: ...


class InterviewContext:
    """What all interviews of a session share.

    `run_id` names the run in the keys of callbacks. Without `callbacks` none is called, and the first valid answer is
    the last, because further turns depend on callback results. `panel` votes on labels; None: one answer is enough.
    """

    __slots__ = ("calls_back", "max_turns", "panel", "run_id", "talks", "task")

    def __init__(self, task: TaskPart, *, run_id: str = "", callbacks: bool = True, panel: Panel | None = None) -> None:
        self.task = task
        self.run_id = run_id
        self.panel = panel
        self.max_turns = task.max_turns if callbacks else 1
        self.talks = self.max_turns > 1
        self.calls_back = callbacks and (self.talks or task.has_callback)

    def without_callbacks(self) -> InterviewContext:
        """Return the same without callbacks."""
        return InterviewContext(self.task, run_id=self.run_id, callbacks=False, panel=self.panel)

    @property
    def keeps_answers(self) -> bool:
        """Whether a label depends on several answers, which a replay needs again."""
        return self.talks or self.panel is not None

    @property
    def most_answers(self) -> int:
        """The most valid answers that a record may take."""
        return self.max_turns if self.panel is None else self.panel.size


def idempotency_key(
    run_id: str,
    key: str,
    *,
    request_digest: bytes,
    request_id: str | None,
    turn: int,
    place: int,
    valid_call: ValidCall,
) -> str:
    """Return a unique name for a call of a record's answer, which stays the same in a resume and a replay."""
    # It includes the call's id: not every server names its answers, and a retry may get the same words.
    call = [valid_call.call.id, valid_call.tool, valid_call.call.arguments]
    parts = [run_id, key, request_digest.hex(), request_id, turn, place, *call]
    return codec.digest128(codec.dumps(parts)).hex()
