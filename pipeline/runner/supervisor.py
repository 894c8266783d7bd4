"""Enforces what controls a run: orders, edits, its end by time or outage, and its workers. Reports stalls."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from pipeline.control import Watchdog, describe_tasks, group_tasks
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, AdmissionState
from pipeline.parts import hours_of
from pipeline.readers import ReadProgress
from pipeline.runlog import log_event
from pipeline.runner.live_controls import ControlLoop
from pipeline.settings import Settings
from pipeline.stats import Stats
from pipeline.units import duration

LOOK_S = 1.0


class DeadlineError(LabelpipeError):
    """The time at which the run was to stop has come."""

    code = "deadline"


#: How long nothing may move before run.log lists what each worker waits for.
STALL_S = 120.0


class Supervisor:
    """Checks once a second, in the pool's task group: if it crashes, nothing could stop the run, so the run ends."""

    def __init__(
        self,
        stats: Stats,
        admission: Admission,
        reading: ReadProgress,
        settings: Settings,
        *,
        stop: Callable[[LabelpipeError], None],
        fit: Callable[[int], None],
        echo: Callable[[str], None],
        on_stall: Callable[[str, float], Awaitable[None]],
        is_waiting: Callable[[], bool],
        update_lane: Callable[[datetime | None], None],
    ) -> None:
        self._stats = stats
        self._admission = admission
        self._reading = reading
        self._stop = stop
        self._fit = fit
        self._echo = echo
        self._on_stall = on_stall
        self._is_waiting = is_waiting
        self._update_lane = update_lane
        self._outages = OutageWatch(admission, stop)
        # A call that may take longer, as at the flex tier, may stall as long.
        self._watchdog = Watchdog(max(STALL_S, settings.model.timeout_s), time.monotonic())
        self.steering: ControlLoop | None = None
        # Mutable state, besides the parts: the settings in force, and when they end the run.
        self.settings = settings
        self.ends_at: datetime | None = None
        self._stop_at: str | None = None
        self.take_over(settings)

    def take_over(self, settings: Settings) -> None:
        """Enforce these limits from now on."""
        self.settings = settings
        self._outages.limit_s = settings.limits.outage_limit_s
        if settings.limits.stop_at == self._stop_at:
            return
        # The next such time after it was set, not after the start: that may have been yesterday.
        self._stop_at, hours = settings.limits.stop_at, hours_of(settings)
        self.ends_at = None if hours is None else hours.ends_at(_now())

    async def watch(self) -> None:
        """Check every second until canceled."""
        while True:
            if self.steering is not None:
                self.steering.check()
            self._fit(self._admission.gate.concurrency)
            self._outages.check()
            self._check_deadline()
            await self._check_stall()
            await asyncio.sleep(LOOK_S)

    def _check_deadline(self) -> None:
        self._update_lane(self.ends_at)
        if self.ends_at is not None and _now() >= self.ends_at:
            self._stop(DeadlineError(f"limits.stop_at {self.ends_at:%H:%M} is reached"))
            self.ends_at = None

    async def _check_stall(self) -> None:
        """Report what each worker waits for if nothing moves and nothing explains it."""
        door, stats, now = self._admission.state(), self._stats, time.monotonic()
        self._watchdog.note((self._admission.calls, stats.answers, stats.records, self._reading.records), now)
        if self._is_waiting() or self._admission.gate.paused or door.outage is not None or door.hold_s > 0:
            self._watchdog.moved(now)
        if not self._watchdog.is_due(now):
            return
        still_s = self._watchdog.still_for_s(now)
        log_event("stalled", level=logging.WARNING, still_for_s=round(still_s, 1), tasks=group_tasks(describe_tasks()))
        message = f"nothing has moved for {duration(still_s)}; run.log says what each worker waits for"
        self._echo(f"labelpipe: {message}")
        await self._on_stall(message, still_s)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time()).astimezone()


class OutageLimitError(LabelpipeError):
    """For limits.outage_limit_s nothing was answered: calls failed for everyone, or were refused."""

    code = "outage"


class OutageWatch:
    """Stops the run after an outage of `limit_s`. Call `check` about every second."""

    def __init__(self, admission: Admission, stop: Callable[[LabelpipeError], None]) -> None:
        self._admission = admission
        self._stop = stop
        self.limit_s = float("inf")
        # Mutable state: the time of the last check, whether the run rested then, the refusal to count from, and how
        # long the run has been refused since.
        self._looked_at = float("-inf")
        self._rested = False
        self._since: float | None = None
        self._refused_s = 0.0

    def check(self) -> None:
        """Stop the run if it is time."""
        now, door = asyncio.get_running_loop().time(), self._admission.state()
        self._count_refused(door, now)
        if self._admission.gate.stopped is not None:
            return
        # An outage that continues an earlier one may have answers in it.
        silent_since = max(door.outage.since, self._admission.gate.last_success_at) if door.outage else now
        if door.outage is not None and now - silent_since > self.limit_s:
            self._stop(OutageLimitError(f"no answer for {duration(self.limit_s)}: {door.outage.reason}"))
        elif self._refused_s > self.limit_s:
            self._stop(OutageLimitError(f"for {duration(self.limit_s)} all calls were refused: {door.hold_reason}"))

    def _count_refused(self, door: AdmissionState, now: float) -> None:
        """Add up the time since the first refusal after the last answer.

        Time in which the run itself sent nothing, or the server had announced its refusals, does not count.
        """
        since, rests = door.refused_since, door.resting or door.excused
        if since != self._since:
            self._since, self._refused_s = since, 0.0
        if since is not None and not rests and not self._rested:
            self._refused_s += now - max(self._looked_at, since)
        self._looked_at, self._rested = now, rests
