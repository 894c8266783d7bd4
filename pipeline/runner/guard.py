"""What enforces what a run was told: orders, edits, the time and the outage at which it ends, its workers, a stall."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from pipeline.control import Watchdog, describe_tasks, grouped
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission
from pipeline.parts import hours_of
from pipeline.readers import Progress as ReadProgress
from pipeline.runlog import tell
from pipeline.runner.outages import OutageWatch
from pipeline.runner.steering import Steering
from pipeline.settings import Settings
from pipeline.stats import Stats
from pipeline.units import duration

LOOK_S = 1.0


class DeadlineError(LabelpipeError):
    """The time at which the run was to stop has come."""

    code = "deadline"


class Guard:
    """Looks once a second, in the pool's task group: if it died, nobody would stop the run, so then the run ends."""

    def __init__(
        self,
        stats: Stats,
        admission: Admission,
        reading: ReadProgress,
        settings: Settings,
        *,
        stop: Callable[[LabelpipeError], None],
        fit: Callable[[int], None],
        say: Callable[[str], None],
        stalled: Callable[[str, float], Awaitable[None]],
    ) -> None:
        self._stats = stats
        self._admission = admission
        self._reading = reading
        self._stop = stop
        self._fit = fit
        self._say = say
        self._stalled = stalled
        self._outages = OutageWatch(admission, stop)
        self._watchdog = Watchdog(settings.limits.stall_s, time.monotonic)
        self.steering: Steering | None = None
        # All state that changes, beside the parts: the settings in force, and when they end the run.
        self.settings = settings
        self.ends_at: datetime | None = None
        self._stop_at: str | None = None
        self.take_over(settings)

    def take_over(self, settings: Settings) -> None:
        """Enforce these limits from now on."""
        self.settings = settings
        self._outages.limit_s = settings.limits.outage_limit_s
        self._watchdog.stall_s = settings.limits.stall_s
        if settings.limits.stop_at == self._stop_at:
            return
        # The next such time from when it was said, not from the start: that may be yesterday's.
        self._stop_at, hours = settings.limits.stop_at, hours_of(settings)
        self.ends_at = None if hours is None else hours.ends_at(_now())

    async def watch(self) -> None:
        """Look every second until cancelled."""
        while True:
            if self.steering is not None:
                self.steering.look()
            self._fit(self._admission.gate.concurrency)
            self._outages.look()
            self._look_at_clock()
            await self._look_for_stall()
            await asyncio.sleep(LOOK_S)

    def _look_at_clock(self) -> None:
        if self.ends_at is not None and _now() >= self.ends_at:
            self._stop(DeadlineError(f"limits.stop_at {self.ends_at:%H:%M} is reached"))
            self.ends_at = None

    async def _look_for_stall(self) -> None:
        """Nothing moved, and nothing says why: run.log gets what each worker waits for."""
        door, stats = self._admission.state(), self._stats
        self._watchdog.note((self._admission.calls, stats.answers, stats.records, self._reading.records))
        if self._admission.gate.paused or door.outage is not None or door.held_for_s > 0:
            self._watchdog.moved()
        if not self._watchdog.look():
            return
        still_s = self._watchdog.still_for_s()
        tell("stalled", level=logging.WARNING, still_for_s=round(still_s, 1), tasks=grouped(describe_tasks()))
        told = f"nothing has moved for {duration(still_s)}; run.log says what each worker waits for"
        self._say(f"labelpipe: {told}")
        await self._stalled(told, still_s)


def _now() -> datetime:
    return datetime.fromtimestamp(time.time()).astimezone()
