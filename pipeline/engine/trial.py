"""What one record has been through between its first call and its outcome, and how that may end."""

from __future__ import annotations

from pipeline.records import Answer, Problem, Request, Response, Status, Usage


class Trial:
    """What one record has been through so far."""

    __slots__ = (
        "answer",
        "answers_before",
        "calls",
        "charged",
        "digest",
        "failing",
        "free",
        "latency_s",
        "refusals",
        "refused_at",
        "repairs",
        "request",
        "response",
        "usage",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        # A repaired request has another digest; that of the first is what identical records share.
        self.digest = request.digest
        self.calls = 0
        self.charged = 0
        self.free = 0
        self.refusals = 0
        self.refused_at = float("-inf")
        self.repairs = 0
        # Whether the last call failed, and how many answers the run had when the first call that failed was sent.
        self.failing = False
        self.answers_before = 0
        self.usage = Usage()
        self.latency_s = 0.0
        self.answer: Answer | None = None
        self.response: Response | None = None


class Over(Exception):  # noqa: N818 - carries an ending, it is no error
    """The record has its ending: a status and why."""

    def __init__(self, status: Status, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status, self.problem = status, problem
