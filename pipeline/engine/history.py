"""What the calls for one record have been through: what the judge goes by. What its answers mean is the interview's."""

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
        # What the last call has asked: its request, for the tier that was chosen for it.
        self.sent: Request | None = None
        # What has been answered to it since its interview was last told: two calls where one took long.
        self.came: list[Response] = []
        self.charged = 0
        self.free = 0
        # Refusals that may be about it: since when, by the call that left first, and those while others passed.
        self.doubted_at: float | None = None
        self.doubts = 0
        self.refusals = self.refusals_of_size = 0
        self.refused_at = float("-inf")
        # Seconds that its calls and waits have taken while the gate was open.
        self.busy_s = 0.0
        # How often flex had no room for what is asked now, and since when it has waited for that.
        self.no_room = 0
        self.no_room_since: float | None = None
        # Whether the last call failed, when the first that failed was sent, and how many answers the run had then.
        self.failing = False
        self.failing_since = float("-inf")
        self.answers_before = 0

    def begin_anew(self) -> None:
        """Something else is asked now: what failed before does not count against it."""
        self.charged = self.free = self.doubts = self.refusals = self.refusals_of_size = 0
        self.doubted_at = None

    @property
    def request(self) -> Request:
        """What is asked now."""
        assert self.interview.request is not None
        return self.interview.request

    @property
    def turn(self) -> int:
        """The turn of the conversation that is asked for, from 0."""
        return self.interview.turn

    @property
    def calls(self) -> int:
        """How many calls were made for the record."""
        return self.interview.calls


class Over(Exception):  # noqa: N818 - carries an ending, it is no error
    """The record has its ending: a status and why."""

    def __init__(self, status: Status, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status, self.problem = status, problem
