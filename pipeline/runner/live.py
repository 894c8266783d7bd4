"""What the outside may see of a running session: the progress line, and live.json for `labelpipe status`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pipeline import codec
from pipeline.control import Watchdog, describe_tasks, grouped
from pipeline.errors import LabelpipeError
from pipeline.limits import Admission, DoorState
from pipeline.notify import Notifier
from pipeline.progress import Progress, Snapshot, duration, eta_s
from pipeline.readers import Progress as ReadProgress
from pipeline.records import Status
from pipeline.runner.parts import hours_of
from pipeline.runner.runlog import tell
from pipeline.runner.steering import Steering, facts_of
from pipeline.settings import Settings
from pipeline.stats import Stats
from pipeline.store import RunDir

LOOK_S = 1.0


class DeadlineError(LabelpipeError):
    """The time at which the run was to stop has come."""

    code = "deadline"


class OutageLimitError(LabelpipeError):
    """The outage lasts longer than limits.outage_limit_s allows."""

    code = "outage"


class Live:
    """Watches a session: snapshots for the screen, live.json, lines when something begins or ends."""

    def __init__(
        self,
        run_dir: RunDir,
        stats: Stats,
        admission: Admission,
        reading: ReadProgress,
        *,
        before: Mapping[Status, int],
        price_known: bool,
        simulated: Callable[[], bool],
        settings: Settings,
        stop: Callable[[LabelpipeError], None],
        notifier: Notifier,
        fit: Callable[[int], None],
    ) -> None:
        self._run_dir = run_dir
        self._stats = stats
        self._admission = admission
        self._reading = reading
        self._before = before
        self._price_known = price_known
        self._stop = stop
        self._notifier = notifier
        self._fit = fit
        self.steering: Steering | None = None
        self._watchdog = Watchdog(settings.limits.stall_s, time.monotonic)
        self._simulated = simulated
        # All state that changes: what was said last, so that it is said once.
        self._in_outage = False
        self._held = ""
        self._unseen = False
        self._started = datetime.now().astimezone()
        self.take_over(settings)

    def take_over(self, settings: Settings) -> None:
        """Watch by these limits from now on."""
        self._outage_limit_s = settings.limits.outage_limit_s
        self._watchdog.stall_s = settings.limits.stall_s
        hours = hours_of(settings)
        self._ends_at = None if hours is None else hours.ends_at(self._started)

    def snapshot(self) -> Snapshot:
        """What the progress line shows now."""
        stats, door = self._stats, self._admission.state()
        done = sum(self._before.values()) + stats.records
        labelled = self._before[Status.LABELLED] + stats.outcomes[Status.LABELLED]
        total = self._reading.estimate()
        calls = max(1, self._admission.calls - self._admission.refusals)
        return Snapshot(
            done=done,
            total=None if total is None else max(total, done),
            total_known=self._reading.exact_total is not None,
            rate_per_minute=stats.outcome_rate.per_minute(),
            limit_per_minute=door.requests_per_minute,
            calls_per_record=max(1.0, calls / stats.records) if stats.records else 1.0,
            cost_usd=stats.cost_usd if self._price_known else None,
            in_flight=door.in_flight,
            retries=stats.retries.total() + self._admission.refusals,
            unlabelled=done - labelled,
            trouble=self._trouble(door),
            requests_left_today=door.requests_left_today,
            requests_per_day=door.requests_per_day,
            simulated=self._simulated(),
        )

    def _trouble(self, door: DoorState) -> str:
        if door.outage is not None:
            since = datetime.fromtimestamp(time.time() - self._ago_s(door.outage.since)).astimezone()
            return f"OUTAGE since {since:%H:%M:%S} ({door.outage.reason[:80]}), probe {door.outage.probes + 1}"
        if self._admission.gate.paused:
            return "PAUSED by order; labelpipe resume goes on"
        if door.held_for_s > 1:
            return f"waiting {duration(door.held_for_s)}: {door.held_reason}"
        return ""

    @staticmethod
    def _ago_s(moment: float) -> float:
        return asyncio.get_running_loop().time() - moment

    async def watch(self, progress: Progress) -> None:
        """Look every second until cancelled."""
        while True:
            if self.steering is not None:
                self.steering.look()
            self._fit(self._admission.gate.concurrency)
            self._write()
            await self._say_changes(progress)
            await self._look_for_stall(progress)
            self._look_at_clock()
            await asyncio.sleep(LOOK_S)

    def _look_at_clock(self) -> None:
        if self._ends_at is not None and datetime.now().astimezone() >= self._ends_at:
            self._stop(DeadlineError(f"limits.stop_at {self._ends_at:%H:%M} is reached"))
            self._ends_at = None

    async def _look_for_stall(self, progress: Progress) -> None:
        """Nothing moved, and nothing says why: run.log gets what each worker waits for."""
        door, stats = self._admission.state(), self._stats
        self._watchdog.note((self._admission.calls, stats.answers, stats.records, self._reading.records))
        if self._admission.gate.paused or door.outage is not None or door.held_for_s > 0:
            self._watchdog.moved()
        if not self._watchdog.look():
            return
        still_s = self._watchdog.still_for_s()
        tasks = grouped(describe_tasks())
        tell("stalled", level=logging.WARNING, still_for_s=round(still_s, 1), tasks=tasks)
        told = f"nothing has moved for {duration(still_s)}; run.log says what each worker waits for"
        progress.say(f"labelpipe: {told}")
        await self._notifier.tell("stalled", told, {"still_for_s": still_s})

    async def _say_changes(self, progress: Progress) -> None:
        door = self._admission.state()
        if door.outage is not None and not self._in_outage:
            told = f"calls fail for everyone ({door.outage.reason[:160]}). Probing until it is over."
            progress.say(f"labelpipe: {told}")
            await self._notifier.tell("outage", told, self.facts())
        if door.outage is None and self._in_outage:
            ended = self._admission.gate.outages[-1]
            lasted_s = (ended.until or ended.since) - ended.since
            progress.say(f"labelpipe: the outage is over after {duration(lasted_s)}.")
            tell("outage ended", lasted_s=round(lasted_s, 3), probes=ended.probes, reason=ended.reason)
        self._in_outage = door.outage is not None
        stopping = self._admission.gate.stopped is not None
        if not stopping and door.outage is not None and self._ago_s(door.outage.since) > self._outage_limit_s:
            self._stop(OutageLimitError(f"no answer for {duration(self._outage_limit_s)}: {door.outage.reason}"))
        self._say_hold(door, progress)

    def _say_hold(self, door: DoorState, progress: Progress) -> None:
        held = door.held_reason if door.held_for_s > 5 else ""
        if held and held != self._held:
            progress.say(f"labelpipe: waiting {duration(door.held_for_s)}: {held}")
            tell("held", seconds=round(door.held_for_s, 3), reason=held)
        self._held = held

    def facts(self) -> dict[str, Any]:
        """The snapshot as plain values."""
        seen = self.snapshot()
        door = self._admission.state()
        return {
            **asdict(seen),
            "eta_s": eta_s(seen),
            "concurrency": door.concurrency,
            "tokens_per_minute": door.tokens_per_minute,
            "paused": self._admission.gate.paused,
            "limits": {} if self.steering is None else facts_of(self.steering.settings),
            "elapsed_s": round(self._stats.elapsed_s, 3),
            "problems": dict(self._stats.problems),
            "written_at": time.time(),
        }

    def _write(self) -> None:
        try:
            write_live(self._run_dir, self.facts())
        except OSError as error:
            # Only what others may see of the run is lost. A full disk stops it at the ledger, and says so.
            if not self._unseen:
                tell("live.json cannot be written", level=logging.WARNING, error=str(error))
            self._unseen = True


def write_live(run_dir: RunDir, facts: Mapping[str, Any]) -> None:
    """Keep what a status from another terminal shows. Not made durable: it is old in a second."""
    part = run_dir.path / "live.json.part"
    part.write_bytes(codec.pretty(facts))
    part.replace(run_dir.path / "live.json")


def read_live(run_dir: RunDir) -> dict[str, Any] | None:
    """What a running session wrote last; None if there is nothing."""
    try:
        facts: dict[str, Any] = codec.loads((run_dir.path / "live.json").read_bytes())
    except (FileNotFoundError, codec.JSONDecodeError):
        return None
    return facts


def is_running(run_dir: RunDir) -> bool:
    """Whether a process holds the folder. Its note outlives a kill, so the process is looked for too."""
    try:
        owner = codec.loads((run_dir.path / "lock.owner").read_bytes())
        os.kill(int(owner["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True
