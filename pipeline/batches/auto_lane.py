"""Chooses for `model.lane = "auto"` whether unsent records go in batches or live, and explains why."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.batches.config import BatchMode
from pipeline.batches.lane import BatchLane
from pipeline.batches.part_progress import CANCEL_S
from pipeline.limits import Hours
from pipeline.runlog import log_event
from pipeline.units import duration

#: With less time than this, a batch is not worth it: half of them take longer (a service's figure for 230,000 batches).
LEAST_WAIT_S = 600.0
#: A batch of many records may take this many times as long as the slowest one of the run so far.
SLOWER = 3
#: Live calls get this many times their expected duration, because the server may admit fewer.
LIVE_TIME_FACTOR = 1.5


class Route(enum.StrEnum):
    """How unsent records are sent."""

    #: In batches.
    BATCH = "batches"
    #: One batch is sent, and the rest waits to see how long it takes.
    FIRST = "a first batch"
    #: In live calls.
    LIVE = "live calls"


@dataclass(frozen=True, slots=True)
class LaneInputs:
    """What is known when a lane is chosen. Times are in seconds.

    `left` is the number of records left (None if unknown); `few` or fewer are not worth a batch. `until_s` is the time
    until limits.stop_at (None without one). `live_s` is the time that live calls take for all records that are left and
    fit the day. `room` is the number of requests, in batches or live, that limits.requests_per_day allows until then
    (today, without an end). `open_spans` are the times (from, to) at which limits.run_between allows calls. Both are
    None if not set. `took_s` is how long the run's own batches took, and `waited_s` is the age of the oldest open one.
    """

    left: int | None = None
    few: int = 0
    has_batches: bool = True
    until_s: float | None = None
    live_s: float = 0.0
    took_s: Sequence[float] = ()
    waited_s: float = 0.0
    room: int | None = None
    open_spans: Sequence[tuple[float, float]] | None = None

    @property
    def spare_s(self) -> float:
        """How long batches may take so that live calls can still do all of the work."""
        return self.latest_s(LIVE_TIME_FACTOR * self.live_s) - CANCEL_S

    def latest_s(self, needed_s: float) -> float:
        """Return when live calls that take this long must begin; negative if it is too late."""
        if self.until_s is None:
            return math.inf
        for begin, end in reversed([(0.0, self.until_s)] if self.open_spans is None else self.open_spans):
            if end - begin >= needed_s:
                return end - needed_s
            needed_s -= end - begin
        return -needed_s

    @property
    def until(self) -> str:
        """`9 h`: the time until limits.stop_at, and how much of it limits.run_between leaves, if not all."""
        until_s = max(0.0, self.until_s or 0.0)
        open_s = until_s if self.open_spans is None else sum(end - begin for begin, end in self.open_spans)
        return duration(until_s) + (f" ({duration(open_s)} of it in limits.run_between)" if open_s < until_s else "")

    @property
    def short(self) -> str:
        """What limits.requests_per_day does not allow, as text; empty if it allows everything."""
        if self.room is None or (self.left is not None and self.left <= self.room):
            return ""
        of = "" if self.left is None else f" of the {self.left:,} records"
        return (
            f"; limits.requests_per_day has room for {self.room:,}{of} {'today' if self.until_s is None else 'by then'}"
        )


@dataclass(frozen=True, slots=True)
class LaneChoice:
    """What was chosen, and why. `flex`: live calls ask for the flex tier."""

    route: Route
    why: str
    flex: bool = False

    def __str__(self) -> str:
        how = "flex calls" if self.flex and self.route is Route.LIVE else self.route.value
        rest = ", and flex calls for the rest" if self.flex and self.route is not Route.LIVE else ""
        return f"lane auto: {how}{rest}, as {self.why}"


def choose_lane(inputs: LaneInputs) -> LaneChoice:
    """Choose the lane for unsent records. Expects of a batch only what earlier batches of the run have shown."""
    choice = _choose_route(inputs)
    return replace(choice, why=choice.why + inputs.short)


def _choose_route(inputs: LaneInputs) -> LaneChoice:
    if not inputs.has_batches:
        return LaneChoice(Route.LIVE, "the server has no batches")
    if inputs.left is not None and inputs.left <= inputs.few:
        return LaneChoice(Route.LIVE, f"{inputs.left:,} records are too few to wait for batches")
    if inputs.until_s is None:
        return LaneChoice(Route.BATCH, "they cost half, and no limits.stop_at says when all has to be done")
    until, live = inputs.until, duration(inputs.live_s)
    if inputs.until_s < CANCEL_S + LEAST_WAIT_S:
        return LaneChoice(Route.LIVE, f"limits.stop_at is in {until}, which is too soon for a batch")
    if inputs.latest_s(inputs.live_s) < CANCEL_S:
        return LaneChoice(Route.BATCH, f"live calls would take about {live}, and limits.stop_at is in {until}")
    spare = duration(max(0.0, inputs.spare_s))
    if inputs.spare_s < LEAST_WAIT_S:
        return LaneChoice(Route.LIVE, f"limits.stop_at is in {until}, and live calls may need {live} of it")
    took_s = max([*inputs.took_s, inputs.waited_s])
    longest, is_slow = duration(took_s), SLOWER * took_s > inputs.spare_s
    if is_slow and took_s > inputs.waited_s:
        return LaneChoice(
            Route.LIVE, f"this run's batches took up to {longest}, and no more than {spare} can be waited for others"
        )
    if is_slow:
        return LaneChoice(
            Route.LIVE, f"a batch is not back after {longest}, and no more than {spare} can be waited for others"
        )
    if not inputs.took_s:
        return LaneChoice(Route.FIRST, f"nobody knows yet how long one takes; it can be waited for {spare}")
    return LaneChoice(Route.BATCH, f"this run's own took up to {longest}, and {spare} can be waited for more")


def uses_flex(inputs: LaneInputs, route: Route, patience_s: float | None) -> bool:
    """Whether live calls may wait for the flex tier. `patience_s` is None if the server has none."""
    if patience_s is None or (inputs.until_s is None and route is Route.LIVE):
        return False
    return inputs.spare_s >= patience_s + inputs.live_s


def open_spans(hours: Hours | None, now: datetime, until_s: float | None) -> list[tuple[float, float]] | None:
    """Return when calls may be sent until then; None if there are no hours or no end."""
    return None if hours is None or until_s is None else hours.spans(now, until_s)


class AutoLane(BatchLane):
    """Chooses again as time passes. A choice of live calls is final, unless the end is moved.

    `left` returns the number of records without an outcome. `patience_s` is how long a call waits for the flex tier.
    """

    def __init__(
        self, *args: Any, left: Callable[[], int | None], patience_s: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._left = left
        self._patience_s = patience_s
        # Mutable state: the choice, the end of the run that it is for, and its inputs.
        self.choice: LaneChoice | None = None
        self._choice_deadline: datetime | None = None
        self._inputs = LaneInputs()

    def check_deadline(self, ends_at: datetime | None) -> None:
        """Choose, and near the end ask live what no batch will answer. Call it about once a second."""
        now, left = time.time(), self._left()
        until_s = None if ends_at is None else ends_at.timestamp() - now
        room = None if self._day is None else self._day.room(until_s or 0.0)
        self._inputs = LaneInputs(
            left,
            until_s=until_s,
            live_s=self._live_s(left if left is None or room is None else min(left, room)),
            room=room,
            open_spans=open_spans(self._admission.hours, datetime.fromtimestamp(now, UTC), until_s),
            took_s=self.batch_runner.took_s,
            waited_s=max([now - (part.sent_at or now) for part in self.batch_runner.polled], default=0.0),
        )
        if self._config.mode is not BatchMode.CANCEL:
            before = self.choice if ends_at == self._choice_deadline else None
            self._choice_deadline = ends_at
            self._apply(self._next_choice(before))
        super().check_deadline(ends_at)

    def _next_choice(self, before: LaneChoice | None) -> LaneChoice:
        """Return the current choice. `before` is the previous one for the same end of the run."""
        if before is None or before.route is not Route.LIVE:
            chosen = choose_lane(self._inputs)
            return replace(chosen, flex=uses_flex(self._inputs, chosen.route, self._patience_s))
        if not before.flex or uses_flex(self._inputs, Route.LIVE, self._patience_s):
            return before
        return replace(
            before, flex=False, why=f"limits.stop_at is in {duration(max(0.0, self._inputs.until_s or 0.0))}"
        )

    def _on_change(self) -> None:
        super()._on_change()
        if self.choice is not None:
            self.check_deadline(self._choice_deadline)  # a batch may have come back

    def _apply(self, choice: LaneChoice) -> None:
        before = self.choice
        is_news = before is None or (choice.route, choice.flex) != (before.route, before.flex)
        self.choice = choice if is_news else before
        self.goes_live, self.part_admission.tries_one = choice.route is Route.LIVE, choice.route is Route.FIRST
        if is_news:
            log_event("lane", chosen=choice.route.value, flex=choice.flex, why=choice.why)
            self.echo(f"labelpipe: {choice}")

    def _reserve_s(self) -> float:
        """Return the time that live calls need for everything left, unless there is not enough time anyway."""
        is_hopeless = self.choice is not None and self.choice.route is Route.BATCH and self._inputs.spare_s < 0
        return (
            super()._reserve_s() if is_hopeless else ((self._inputs.until_s or 0.0) - CANCEL_S - self._inputs.spare_s)
        )

    async def close(self) -> list[str]:
        """Close the parts as any lane does. The messages include the last choice."""
        return [*([str(self.choice)] if self.choice else []), *await super().close()]
