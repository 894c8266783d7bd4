"""What one record has been through between its first call and its outcome, and how that may end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from pipeline.records import JSON, Answer, Problem, Request, Response, Said, Status, Turn, Usage


class Trial:
    """What one record has been through so far."""

    __slots__ = (
        "answer",
        "answers_before",
        "base",
        "busy_s",
        "calls",
        "charged",
        "digest",
        "doubted_at",
        "doubts",
        "failing",
        "free",
        "kept",
        "latency_s",
        "model",
        "refusals",
        "refusals_of_size",
        "refused_at",
        "repairs",
        "repairs_here",
        "request",
        "request_id",
        "results",
        "said",
        "turn",
        "usage",
        "used_before",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        # A repaired request has another digest; that of the first is what identical records share.
        self.digest = request.digest
        self.calls = 0
        self.charged = 0
        self.free = 0
        # Refusals that may be about it: since when, by the call that left first, and those while others passed.
        self.doubted_at: float | None = None
        self.doubts = 0
        self.refusals = self.refusals_of_size = 0
        self.refused_at = float("-inf")
        self.repairs = 0
        # Seconds that its calls and waits have taken while the gate was open.
        self.busy_s = 0.0
        # Whether the last call failed, and how many answers the run had when the first call that failed was sent.
        self.failing = False
        self.answers_before = 0
        self.usage = Usage()
        self.latency_s = 0.0
        self.answer: Answer | None = None
        self.model: str | None = None
        self.request_id: str | None = None
        # The conversation: turns that the ledger holds and that are still to be gone through, the calls of the turns
        # before this one; of this one its number, how many messages it began with, its repairs, what its callbacks
        # have given back, and what all turns before it took (usage, calls, repairs).
        self.kept: list[Turn] = []
        self.said: list[Said] = []
        self.turn = 0
        self.base = len(request.messages)
        self.repairs_here = 0
        self.results: list[Mapping[str, JSON]] = []
        self.used_before = (Usage(), 0, 0)

    def answered(self, response: Response) -> Answer:
        """This is the answer. Where the server gives it no name it gets one here: it is part of callbacks' keys."""
        self.latency_s = response.latency_s
        self.answer, self.model = response.answer, response.model
        self.request_id = response.request_id or f"unnamed-{uuid.uuid4().hex}"
        self.free = 0
        return response.answer

    def take_kept(self) -> Answer:
        """The next answer that the ledger holds."""
        turn = self.kept.pop(0)
        self.usage += turn.usage
        self.calls += turn.calls
        self.repairs += turn.repairs
        self.latency_s = turn.latency_s
        self.answer, self.model, self.request_id = turn.answer, turn.model, turn.request_id
        self.results = list(turn.results)
        return turn.answer

    def write_off(self, turns: Sequence[Turn]) -> None:
        """Answers that were paid for and that nothing can be made of any more."""
        for turn in turns:
            self.usage += turn.usage
            self.calls += turn.calls
            self.repairs += turn.repairs

    def go_on(self, request: Request) -> None:
        """The next turn begins."""
        self.request = request
        self.turn += 1
        self.base = len(request.messages)
        self.repairs_here = 0
        self.results = []
        self.used_before = (self.usage, self.calls, self.repairs)

    def as_turn(self, answer: Answer, now: float) -> Turn:
        """The turn as the ledger keeps it."""
        usage, calls, repairs = self.used_before
        return Turn(
            key=self.request.record.key,
            number=self.turn,
            request_digest=self.digest,
            answer=answer,
            usage=self.usage - usage,
            calls=self.calls - calls,
            repairs=self.repairs - repairs,
            model=self.model,
            request_id=self.request_id,
            latency_s=self.latency_s,
            at=now,
            results=tuple(self.results),
        )


class Over(Exception):  # noqa: N818 - carries an ending, it is no error
    """The record has its ending: a status and why."""

    def __init__(self, status: Status, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status, self.problem = status, problem
