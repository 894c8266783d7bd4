"""Records what happened to a record's calls, for the judge. The interview decides what its answers mean."""

from pipeline.engine.interview import Interview
from pipeline.records import Problem, Request, Response, Status


class CallHistory:
    """The calls for one record so far."""

    __slots__ = (
        "answers_before",
        "busy_s",
        "came",
        "charged",
        "doubted_at",
        "doubts",
        "failing",
        "failing_since",
        "free",
        "interview",
        "no_room",
        "no_room_since",
        "refusals",
        "refusals_of_size",
        "refused_at",
        "sent",
    )

    def __init__(self, interview: Interview) -> None:
        self.interview = interview
        # The request of the last call, with the tier that was chosen for it.
        self.sent: Request | None = None
        # The answers that the interview has not received yet: two if a slow call was hedged.
        self.came: list[Response] = []
        self.charged = 0
        self.free = 0
        # Refusals that may be its own fault: since when (the first call was sent), and how many while others passed.
        self.doubted_at: float | None = None
        self.doubts = 0
        self.refusals = self.refusals_of_size = 0
        self.refused_at = float("-inf")
        # Seconds that its calls and waits took while the gate was open.
        self.busy_s = 0.0
        # How often flex had no capacity for the current request, and since when it has waited.
        self.no_room = 0
        self.no_room_since: float | None = None
        # Whether the last call failed, when the first failed one was sent, and the run's answers at that time.
        self.failing = False
        self.failing_since = float("-inf")
        self.answers_before = 0

    def begin_anew(self) -> None:
        """Forget earlier failures, because the request is a new one."""
        self.charged = self.free = self.doubts = self.refusals = self.refusals_of_size = 0
        self.doubted_at = None

    @property
    def request(self) -> Request:
        """The current request."""
        assert self.interview.request is not None
        return self.interview.request

    @property
    def turn(self) -> int:
        """The 0-based turn of the conversation."""
        return self.interview.turn

    @property
    def calls(self) -> int:
        """The number of calls for the record."""
        return self.interview.calls


class Over(Exception):  # noqa: N818 - carries an ending, it is no error
    """The record has ended, with a status and a reason."""

    def __init__(self, status: Status, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status, self.problem = status, problem
