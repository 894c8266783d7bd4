"""The end of a run that gets no answers: an outage, or nothing but refusals, for limits.outage_limit_s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, DoorState
from pipeline.units import duration


class OutageLimitError(LabelpipeError):
    """For limits.outage_limit_s nothing was answered: calls failed for everyone, or were refused."""

    code = "outage"


class OutageWatch:
    """Stops the run when `limit_s` is over. To be asked about once a second."""

    def __init__(self, admission: Admission, stop: Callable[[LabelpipeError], None]) -> None:
        self._admission = admission
        self._stop = stop
        self.limit_s = float("inf")
        # All state that changes: when it was looked at last, whether the run rested then, the refusal it counts from,
        # and how long the run was refused since.
        self._looked_at = float("-inf")
        self._rested = False
        self._since: float | None = None
        self._refused_s = 0.0

    def look(self) -> None:
        """Stop the run if it is time."""
        now, door = asyncio.get_running_loop().time(), self._admission.state()
        self._count_refused(door, now)
        if self._admission.gate.stopped is not None:
            return
        # An outage that goes on with one before it may have answers in it.
        silent_since = max(door.outage.since, self._admission.gate.last_success_at) if door.outage else now
        if door.outage is not None and now - silent_since > self.limit_s:
            self._stop(OutageLimitError(f"no answer for {duration(self.limit_s)}: {door.outage.reason}"))
        elif self._refused_s > self.limit_s:
            self._stop(OutageLimitError(f"for {duration(self.limit_s)} all calls were refused: {door.held_reason}"))

    def _count_refused(self, door: DoorState, now: float) -> None:
        """Time since the first refusal after the last answer.

        Without that in which the run itself let nothing go, or the server had said that it lets nothing through.
        """
        since, rests = door.refused_since, door.resting or door.excused
        if since != self._since:
            self._since, self._refused_s = since, 0.0
        if since is not None and not rests and not self._rested:
            self._refused_s += now - max(self._looked_at, since)
        self._looked_at, self._rested = now, rests
