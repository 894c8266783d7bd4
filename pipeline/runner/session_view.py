"""Shows a running session to the outside: the progress line, and live.json for `labelpipe status`."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pipeline import codec
from pipeline.limits import AdmissionState, Budget, Price, estimate_remaining
from pipeline.progress import Progress, Snapshot, eta_s
from pipeline.readers import ReadProgress
from pipeline.records import Status
from pipeline.runlog import log_event
from pipeline.runner.live_controls import facts_of
from pipeline.runner.notifications import LONG_HOLD_S, Notifications
from pipeline.runner.session_parts import SessionParts
from pipeline.runner.summary import learned_of
from pipeline.runner.supervisor import Supervisor
from pipeline.runner.throughput import Throughput
from pipeline.stats import Stats
from pipeline.store import RunDir
from pipeline.terminal import cut
from pipeline.units import duration

LOOK_S = 1.0


class SessionView:
    """Shows a session: snapshots for the screen, live.json, and lines and notifications about events.

    Nothing depends on it. What it cannot show is logged, only once, and the run continues.
    """

    def __init__(
        self,
        parts: SessionParts,
        stats: Stats,
        reading: ReadProgress,
        *,
        before: Mapping[Status, int],
        price: Price | None,
        simulated: Callable[[], bool],
        notifications: Notifications,
        gold: Callable[[], str],
        waiting: Callable[[], str],
        batches: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._run_dir = parts.run_dir
        self._stats = stats
        self._admission = parts.admission
        self._reading = reading
        self._before = before
        self._price = price
        self._notifications = notifications
        self._gold = gold
        self._waiting = waiting
        self._batches = batches
        self._simulated = simulated
        self._throughput = Throughput(parts.run_dir, stats, parts.admission)
        #: Enforces the limits, and has the limits in force.
        self.supervisor: Supervisor | None = None
        # Mutable state: what was last reported, so that it is reported only once.
        self._in_outage = False
        self._hold_reason = ""
        self._unseen: set[str] = set()

    def snapshot(self) -> Snapshot:
        """Return what the progress line shows now."""
        stats, door = self._stats, self._admission.state()
        done = sum(self._before.values()) + stats.records
        labelled = self._before[Status.LABELLED] + stats.outcomes[Status.LABELLED]
        total = self._reading.estimate()
        calls = max(1, self._admission.calls - self._admission.refusals)
        untold = stats.unpriced > 0 and not stats.cost_usd
        return Snapshot(
            done=done,
            total=None if total is None else max(total, done),
            total_known=self._reading.exact_total is not None,
            rate_per_minute=stats.outcome_rate.per_minute(),
            limit_per_minute=door.requests_per_minute,
            calls_per_record=max(1.0, calls / stats.records) if stats.records else 1.0,
            cost_usd=None if self._price is None or untold else stats.cost_usd,
            in_flight=door.in_flight,
            retries=stats.retries.total() - stats.retries["hedge"] + self._admission.refusals,
            unlabelled=done - labelled,
            trouble=self._trouble(door),
            requests_left_today=door.requests_left_today,
            requests_per_day=door.requests_per_day,
            simulated=self._simulated(),
            usage_unknown=self._price is not None and untold,
            gold=self._gold(),
        )

    def _trouble(self, door: AdmissionState) -> str:
        if door.outage is not None:
            since = datetime.fromtimestamp(time.time() - self._ago_s(door.outage.since)).astimezone()
            return f"OUTAGE since {since:%H:%M:%S} ({cut(door.outage.reason, 80)}), probe {door.outage.probes + 1}"
        if self._admission.gate.stopped is not None:
            return f"stopping: {cut(str(self._admission.gate.stopped), 80)}"
        if self._admission.gate.paused:
            return "PAUSED; labelpipe resume continues"
        if door.hold_s > 1:
            return f"waiting {duration(door.waits_s)}: {door.hold_reason}"
        return self._waiting()

    @staticmethod
    def _ago_s(moment: float) -> float:
        return asyncio.get_running_loop().time() - moment

    async def watch(self, progress: Progress) -> None:
        """Update every second until canceled."""
        try:
            while True:
                await self._guarded("live.json", lambda: write_live(self._run_dir, self.facts()))
                await self._guarded("throughput", self._throughput.check)
                await self._guarded("changes", lambda: self._report_changes(progress))
                await self._guarded("a stop", self._report_stop)
                await asyncio.sleep(LOOK_S)
        finally:
            with suppress(OSError):
                self._throughput.close()

    async def on_stall(self, message: str, still_s: float) -> None:
        """Send a notification that nothing moves."""

        def notify() -> Awaitable[None]:
            return self._notifications.on_stall(message, {**self.facts(), "still_for_s": still_s})

        await self._guarded("a stall", notify)

    async def _guarded(self, what: str, show: Callable[[], Awaitable[None] | None]) -> None:
        """Show something; an error only hides it. If the disk is full, the ledger reports that and stops the run."""
        try:
            if (work := show()) is not None:
                await work
        except Exception as error:
            if what not in self._unseen:
                log_event("the run cannot be shown", level=logging.WARNING, what=what, error=repr(error))
            self._unseen.add(what)

    async def _report_changes(self, progress: Progress) -> None:
        door = self._admission.state()
        if door.outage is not None and not self._in_outage:
            message = f"calls fail for everyone ({cut(door.outage.reason, 160)}). Probing until it is over."
            progress.echo(f"labelpipe: {message}")
            limit_s = math.inf if self.supervisor is None else self.supervisor.settings.limits.outage_limit_s
            await self._notifications.on_outage(door.outage.reason, limit_s, self.facts())
        # Only after it has settled: one that begins again before is the same.
        is_over = door.outage is None and not self._admission.gate.is_settling(asyncio.get_running_loop().time())
        if is_over and self._in_outage:
            ended = self._admission.gate.outages[-1]
            lasted_s = (ended.until or ended.since) - ended.since
            progress.echo(f"labelpipe: the outage is over after {duration(lasted_s)}.")
            log_event("outage ended", lasted_s=round(lasted_s, 3), probes=ended.probes, reason=ended.reason)
        self._in_outage = not is_over and (self._in_outage or door.outage is not None)
        self._report_hold(door, progress)
        await self._notify_hold(door)

    async def _report_stop(self) -> None:
        """Report a stop at once: calls in flight may take time to end."""
        reason = self._admission.gate.stopped
        if reason is not None:
            await self._notifications.on_stop(reason, self.facts(), self.left_text())

    def left_text(self) -> str:
        """Return what is left to do and its estimated cost, if a budget has a cap; else an empty text."""
        budget, snapshot = self._admission.budget, self.snapshot()
        if budget is None or not budget.is_capped:
            return ""
        left = None if snapshot.total is None else snapshot.total - snapshot.done
        return f"Left: {estimate_remaining(left, budget.spent, snapshot.done, exact=snapshot.total_known).text}."

    async def _notify_hold(self, door: AdmissionState) -> None:
        """Report a long wait: the day's requests are used up, or the server asked for it."""
        if door.requests_left_today == 0 and door.hold_s > 60:
            await self._notifications.on_hold("day_limit", door.hold_reason, door.hold_s, self.facts())
        elif door.asked_for_s > LONG_HOLD_S:
            await self._notifications.on_hold("rate_limited", door.hold_reason, door.waits_s, self.facts())
        elif door.hold_s <= 0 and door.asked_for_s <= 0 and door.refused_since is None:
            self._notifications.on_hold_end()

    def _report_hold(self, door: AdmissionState, progress: Progress) -> None:
        hold_reason = door.hold_reason if door.hold_s > 5 else ""
        if not hold_reason and door.server_day_s > 0:
            return  # one call asks again
        if hold_reason and hold_reason != self._hold_reason:
            progress.echo(f"labelpipe: waiting {duration(door.waits_s)}: {hold_reason}")
            log_event("held", seconds=round(door.waits_s, 3), reason=hold_reason)
        self._hold_reason = hold_reason

    def facts(self) -> dict[str, Any]:
        """Return the snapshot as plain values, and facts behind it."""
        snapshot = self.snapshot()
        door, gate, stats, supervisor = self._admission.state(), self._admission.gate, self._stats, self.supervisor
        outage = door.outage
        return {
            **asdict(snapshot),
            "eta_s": eta_s(snapshot),
            "calls": self._admission.calls,
            "refusals": self._admission.refusals,
            "hedged": stats.retries["hedge"],
            "latency_p50_s": stats.latencies.percentile_s(50),
            "latency_p95_s": stats.latencies.percentile_s(95),
            "usage": asdict(stats.usage),
            "price": None if self._price is None else asdict(self._price),
            "gate": gate.state,
            "stopping": None if gate.stopped is None else str(gate.stopped),
            "held_for_s": round(door.waits_s, 3),
            "held_reason": door.hold_reason if door.hold_s > 0 else "",
            "outage": outage
            and {"since": time.time() - self._ago_s(outage.since), "reason": outage.reason, "probes": outage.probes},
            "outages": len(gate.outages) + (door.outage is not None),
            "concurrency": door.concurrency,
            "tokens_per_minute": door.tokens_per_minute,
            **learned_of(self._admission),
            "batches": self._batches(),
            "budget": _budget_facts(self._admission.budget),
            "ends_at": None if supervisor is None or supervisor.ends_at is None else supervisor.ends_at.isoformat(),
            "paused": gate.paused,
            "limits": {} if supervisor is None else facts_of(supervisor.settings),
            "elapsed_s": round(self._stats.elapsed_s, 3),
            "problems": dict(self._stats.problems),
            "go_on": self._notifications.go_on,
            "written_at": time.time(),
        }


@asynccontextmanager
async def background_tasks(*shows: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run display tasks while the block lasts. Nothing depends on them: their errors are only logged."""
    tasks = [asyncio.create_task(show) for show in shows]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                log_event("the display broke off", level=logging.ERROR, error=repr(ended))


def _budget_facts(budget: Budget | None) -> dict[str, Any] | None:
    """Return US dollars and tokens: spent (including what may have been billed), reserved in flight, and left."""
    if budget is None or not budget.is_capped:
        return None

    amounts = {"spent": budget.spent, "counted": budget.counted, "left": budget.left()}
    return {name: {"usd": spend.usd, "tokens": spend.tokens} for name, spend in amounts.items()}


def write_live(run_dir: RunDir, facts: Mapping[str, Any]) -> None:
    """Save what a status from another terminal shows. Not synced: it is old in a second."""
    part = run_dir.path / "live.json.part"
    part.write_bytes(codec.pretty(facts))
    part.replace(run_dir.path / "live.json")


def read_live(run_dir: RunDir) -> dict[str, Any] | None:
    """Return what a running session wrote last; None if there is nothing."""
    try:
        facts: dict[str, Any] = codec.loads((run_dir.path / "live.json").read_bytes())
    except (OSError, codec.JSONDecodeError):
        return None
    return facts


def report_reading(progress: Progress, text: str) -> None:
    """Report what was detected in the input or left out."""
    log_event("input", told=text)
    progress.echo(f"labelpipe: {text}")
