"""The choice of `model.lane = "auto"`: by which lane what is not sent yet goes, and why."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.batches.lane import Lane
from pipeline.batches.outlook import CANCEL_S
from pipeline.batches.rules import Mode
from pipeline.limits import Hours
from pipeline.runlog import log_event
from pipeline.units import duration

#: Less time than this is not worth a batch: half of them take longer (a service's figure over 230,000 batches).
LEAST_WAIT_S = 600.0
#: A batch of many records may take so many times as long as the slowest one of the run so far.
SLOWER = 3
#: So many times the time that live calls are expected to take is kept for them: the server may let fewer through.
KEPT = 1.5


class Bulk(enum.StrEnum):
    """How what is not sent yet goes out."""

    #: in batches
    BATCH = "batches"
    #: one batch goes, and the rest waits to see how long that takes
    FIRST = "a first batch"
    #: in live calls
    LIVE = "live calls"


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is known when a lane is chosen.

    `left` is how many records are left, None where nobody knows; no more than `few` are not worth a batch. `until_s` is
    the time until limits.stop_at, None without one; `live_s` is what live calls take for all that is left and has room.
    `room` is how many requests limits.requests_per_day leaves until then (today, without an end), those of batches
    among them, and `open_s` when limits.run_between lets them go: from and to. None where these are not set. `took_s`
    is how long the run's own batches took, and `waited_s` for how long one that is not back has been waited for. Times
    are in seconds.
    """

    left: int | None = None
    few: int = 0
    has_batches: bool = True
    until_s: float | None = None
    live_s: float = 0.0
    took_s: Sequence[float] = ()
    waited_s: float = 0.0
    room: int | None = None
    open_s: Sequence[tuple[float, float]] | None = None

    @property
    def spare_s(self) -> float:
        """How long batches can be waited for, so that live calls can still do all of it."""
        return self.latest_s(KEPT * self.live_s) - CANCEL_S

    def latest_s(self, needed_s: float) -> float:
        """When live calls that take so long have to begin; less than nothing where it is too late for that."""
        if self.until_s is None:
            return math.inf
        for begin, end in reversed([(0.0, self.until_s)] if self.open_s is None else self.open_s):
            if end - begin >= needed_s:
                return end - needed_s
            needed_s -= end - begin
        return -needed_s

    @property
    def until(self) -> str:
        """`9 h`: how far away limits.stop_at is; and how much of that limits.run_between leaves, if not all."""
        until_s = max(0.0, self.until_s or 0.0)
        open_s = until_s if self.open_s is None else sum(end - begin for begin, end in self.open_s)
        return duration(until_s) + (f" ({duration(open_s)} of it in limits.run_between)" if open_s < until_s else "")

    @property
    def short(self) -> str:
        """What limits.requests_per_day says of it; empty where there is room for all."""
        if self.room is None or (self.left is not None and self.left <= self.room):
            return ""
        of = "" if self.left is None else f" of the {self.left:,} records"
        return (
            f"; limits.requests_per_day has room for {self.room:,}{of} {'today' if self.until_s is None else 'by then'}"
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why. `flex`: what goes live asks for the flex tier."""

    bulk: Bulk
    why: str
    flex: bool = False

    def __str__(self) -> str:
        how = "flex calls" if self.flex and self.bulk is Bulk.LIVE else self.bulk.value
        rest = ", and flex calls for the rest" if self.flex and self.bulk is not Bulk.LIVE else ""
        return f"lane auto: {how}{rest}, as {self.why}"


def choose(ahead: Ahead) -> Choice:
    """The lane for what is not sent yet. It promises no batch's time: it goes by those that the run has seen."""
    choice = _choose(ahead)
    return replace(choice, why=choice.why + ahead.short)


def _choose(ahead: Ahead) -> Choice:
    if not ahead.has_batches:
        return Choice(Bulk.LIVE, "the server has no batches")
    if ahead.left is not None and ahead.left <= ahead.few:
        return Choice(Bulk.LIVE, f"{ahead.left:,} records are too few to wait for batches")
    if ahead.until_s is None:
        return Choice(Bulk.BATCH, "they cost half, and no limits.stop_at says when all has to be done")
    until, live = ahead.until, duration(ahead.live_s)
    if ahead.until_s < CANCEL_S + LEAST_WAIT_S:
        return Choice(Bulk.LIVE, f"limits.stop_at is in {until}, which is too soon for a batch")
    if ahead.latest_s(ahead.live_s) < CANCEL_S:
        return Choice(Bulk.BATCH, f"live calls would take about {live}, and limits.stop_at is in {until}")
    spare = duration(max(0.0, ahead.spare_s))
    if ahead.spare_s < LEAST_WAIT_S:
        return Choice(Bulk.LIVE, f"limits.stop_at is in {until}, and live calls may need {live} of it")
    took_s = max([*ahead.took_s, ahead.waited_s])
    took, is_slow = duration(took_s), SLOWER * took_s > ahead.spare_s
    if is_slow and took_s > ahead.waited_s:
        return Choice(
            Bulk.LIVE, f"this run's batches took up to {took}, and no more than {spare} can be waited for others"
        )
    if is_slow:
        return Choice(Bulk.LIVE, f"a batch is not back after {took}, and no more than {spare} can be waited for others")
    if not ahead.took_s:
        return Choice(Bulk.FIRST, f"nobody knows yet how long one takes; it can be waited for {spare}")
    return Choice(Bulk.BATCH, f"this run's own took up to {took}, and {spare} can be waited for more")


def takes_flex(ahead: Ahead, bulk: Bulk, patience_s: float | None) -> bool:
    """Whether what goes live may wait for the flex tier; `patience_s` is None where the server has none."""
    if patience_s is None or (ahead.until_s is None and bulk is Bulk.LIVE):
        return False
    return ahead.spare_s >= patience_s + ahead.live_s


def open_s(hours: Hours | None, now: datetime, until_s: float | None) -> list[tuple[float, float]] | None:
    """When calls may leave until then; None where there are no hours, or there is no end."""
    return None if hours is None or until_s is None else hours.spans(now, until_s)


class AutoLane(Lane):
    """Chooses again as time goes by; what was once left to live calls is not taken back, unless the end is moved.

    `left` gives the records without an outcome, `patience_s` is how long a call waits for the flex tier.
    """

    def __init__(
        self, *given: Any, left: Callable[[], int | None], patience_s: float | None = None, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self._left = left
        self._patience_s = patience_s
        # All state that changes: what was chosen, for which end of the run, and by what.
        self.choice: Choice | None = None
        self._chosen_for: datetime | None = None
        self._ahead = Ahead()

    def nears(self, ends_at: datetime | None) -> None:
        """Choose, and near the end ask live what no batch will answer; to be asked about once a second."""
        now, left = time.time(), self._left()
        until_s = None if ends_at is None else ends_at.timestamp() - now
        room = None if self._day is None else self._day.room(until_s or 0.0)
        self._ahead = Ahead(
            left,
            until_s=until_s,
            live_s=self._live_s(left if left is None or room is None else min(left, room)),
            room=room,
            open_s=open_s(self._admission.hours, datetime.fromtimestamp(now, UTC), until_s),
            took_s=self.courier.took_s,
            waited_s=max([now - (part.sent_at or now) for part in self.courier.working], default=0.0),
        )
        if self._rules.mode is not Mode.CANCEL:
            before = self.choice if ends_at == self._chosen_for else None
            self._chosen_for = ends_at
            self._take(self._chosen(before))
        super().nears(ends_at)

    def _chosen(self, before: Choice | None) -> Choice:
        """What is chosen now; `before` is what was chosen for the same end of the run."""
        if before is None or before.bulk is not Bulk.LIVE:
            chosen = choose(self._ahead)
            return replace(chosen, flex=takes_flex(self._ahead, chosen.bulk, self._patience_s))
        if not before.flex or takes_flex(self._ahead, Bulk.LIVE, self._patience_s):
            return before
        return replace(before, flex=False, why=f"limits.stop_at is in {duration(max(0.0, self._ahead.until_s or 0.0))}")

    def _look(self) -> None:
        super()._look()
        if self.choice is not None:
            self.nears(self._chosen_for)  # a batch may have come back

    def _take(self, choice: Choice) -> None:
        before = self.choice
        is_news = before is None or (choice.bulk, choice.flex) != (before.bulk, before.flex)
        self.choice = choice if is_news else before
        self.goes_live, self.allowing.tries_one = choice.bulk is Bulk.LIVE, choice.bulk is Bulk.FIRST
        if is_news:
            log_event("lane", chosen=choice.bulk.value, flex=choice.flex, why=choice.why)
            self.say(f"labelpipe: {choice}")

    def _reserve_s(self) -> float:
        """All that is left is to be done live by then, unless that takes longer than there is time anyway."""
        is_hopeless = self.choice is not None and self.choice.bulk is Bulk.BATCH and self._ahead.spare_s < 0
        return super()._reserve_s() if is_hopeless else ((self._ahead.until_s or 0.0) - CANCEL_S - self._ahead.spare_s)

    async def close(self) -> list[str]:
        """Close the parts as any lane does; what was chosen last is told too."""
        return [*([str(self.choice)] if self.choice else []), *await super().close()]
