"""Applies changes during a run, within a second or two: orders from another terminal, and edits of the config."""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from pipeline import codec
from pipeline.control import (
    FILE_ONLY_KEYS,
    LIVE_TABLES,
    ConfigWatch,
    Inbox,
    LiveSettings,
    Order,
    SettingChange,
    SettingChanges,
    refused_line,
)
from pipeline.engine import Asker
from pipeline.errors import ConfigError, LabelpipeError
from pipeline.limits import Admission, format_spent
from pipeline.notify import Notifier
from pipeline.parts import budget_of, hours_of, notify_targets, rules_of, tuner_of
from pipeline.runlog import log_event
from pipeline.settings import Settings
from pipeline.terminal import cut


class DrainedError(LabelpipeError):
    """Drained by order; the same command resumes it."""

    code = "drained"


#: Applies one part of a change. It cannot fail: whatever can fail is done before any action runs.
Action = Callable[[], None]


class ControlTarget(Protocol):
    """What orders and edits control: one session, or the shards of a run."""

    def echo(self, text: str, /) -> None:
        """Print a line."""

    def take_over(self, settings: Settings, /) -> None:
        """Use these settings from now on."""

    def pause(self, paused: bool) -> str:
        """Stop or continue sending. Return a message."""

    def drain(self) -> str:
        """Let the calls in flight end, and then end the run. Return a message."""

    def actions(self, changes: Sequence[SettingChange], settings: Settings) -> Sequence[Action]:
        """Return the actions that apply these changes; `settings` are the new ones. Raises ConfigError."""

    def describe(self, change: SettingChanges, source: str) -> Sequence[str]:
        """Return the lines that report a change."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What can change while a session runs, and how the session changes. `ends_at` is when `stop_at` ends it."""

    asker: Asker
    admission: Admission
    notifier: Notifier
    stop: Callable[[LabelpipeError], None]
    echo: Callable[[str], None]
    take_over: Callable[[Settings], None]
    ends_at: Callable[[], datetime | None]

    def pause(self, paused: bool) -> str:
        """Pause the gate, or let it continue."""
        gate = self.admission.gate
        gate.set_paused(paused)
        return f"paused; {gate.in_flight} calls in flight finish, and nothing new is sent" if paused else "continues"

    def drain(self) -> str:
        """End the session softly."""
        self.stop(DrainedError())
        return f"draining; {self.admission.gate.in_flight} calls in flight finish, then the run ends"

    def actions(self, changes: Sequence[SettingChange], settings: Settings) -> Sequence[Action]:
        """Return one action for each kind of change."""
        changed = {one.key for one in changes}
        return [action(self, settings) for action, keys in _ACTIONS.items() if keys & changed]

    def describe(self, change: SettingChanges, source: str) -> Sequence[str]:
        """Return the old and new values, and what these do not show."""
        ends_at, budget = self.ends_at(), self.admission.budget
        more = {} if ends_at is None else {"limits.stop_at": f"the run ends at {ends_at:%Y-%m-%d %H:%M}"}
        if budget is not None and budget.is_capped:
            more |= dict.fromkeys(("limits.budget_usd", "limits.budget_tokens"), f"so far {format_spent(budget.spent)}")
        return change.lines(source, more)


class ControlLoop:
    """Checks for orders and edits once a second.

    The latest change wins: an order holds until the file changes its key, and the file until the next order. Each
    change is checked as a whole, and then applied or refused as a whole.
    """

    def __init__(self, settings: Settings, target: ControlTarget, inbox: Inbox) -> None:
        self._target = target
        self._inbox = inbox
        self._watch = None if settings.config_path is None else ConfigWatch(settings.config_path)
        self._standing = LiveSettings(codec.flatten(settings.model_dump()))
        # Mutable state, besides the parts: the settings in force, those of the last valid file, and what orders have
        # set over it.
        self.settings = settings
        self._file_settings = settings
        self._orders: dict[str, str] = {}

    def check(self) -> None:
        """Apply what came since the last check."""
        for order in self._inbox.read_new():
            ok, text = self._carry_out(order)
            self._inbox.answer(order, ok, text)
            self._target.echo(f"labelpipe: {order.verb}: {cut(text, 300)}")
        if self._watch is not None and self._watch.changed():
            self._reload(self._watch)

    def _carry_out(self, order: Order) -> tuple[bool, str]:
        """Carry out an order, and return its result. Orders are untrusted: an error refuses only the order."""
        try:
            if order.verb in ("pause", "resume"):
                return True, self._target.pause(order.verb == "pause")
            return (True, self._target.drain()) if order.verb == "drain" else self._set(str(order.key), order.value)
        except Exception as error:
            log_event("order broke", level=logging.ERROR, verb=order.verb, trace=traceback.format_exc(limit=-5))
            return False, f"it cannot be carried out: {cut(str(error) or repr(error), 160)}"

    def _set(self, key: str, value: object) -> tuple[bool, str]:
        orders = {**self._orders, key: f"{key}={value}"}  # parsed like --set
        try:
            settings = self._file_settings.ordered(list(orders.values()))
            if not key.startswith(LIVE_TABLES):
                return False, refused_line(key, lasting=False)
            if key in FILE_ONLY_KEYS:
                file = self.settings.config_path or "the config"
                return False, f"{key} names a program, so only the config file sets it: edit {file}"
            change = self._apply(settings)
        except ConfigError as error:
            return False, str(error)
        self._orders = orders
        return True, "; ".join(self._target.describe(change, "set")) or f"{key} already has this value"

    # -- the config file -----------------------------------------------------------------------------------------

    def _reload(self, watch: ConfigWatch) -> None:
        source = str(self.settings.config_path)
        try:
            file_settings = self._file_settings.again()
            # The orders whose keys have not changed in the file.
            before, now = codec.flatten(self._file_settings.model_dump()), codec.flatten(file_settings.model_dump())
            orders = {key: order for key, order in self._orders.items() if before.get(key) == now.get(key)}
            change = self._apply(file_settings.ordered(list(orders.values())) if orders else file_settings)
        except Exception as error:  # a mistake in the file, or whatever else a file can break
            if watch.is_news():
                self._target.echo(
                    f"labelpipe: {source} was edited, but the edit was not applied:\n{error or repr(error)}"
                )
            if not isinstance(error, ConfigError):
                log_event("edit broke", level=logging.ERROR, file=source, trace=traceback.format_exc(limit=-5))
            return
        watch.is_good()
        self._file_settings, self._orders = file_settings, orders
        for line in self._target.describe(change, source):
            self._target.echo(f"labelpipe: {line}")

    def _apply(self, settings: Settings) -> SettingChanges:
        """Apply what may change. If it raises ConfigError, nothing has changed."""
        new = codec.flatten(settings.model_dump())
        changes = self._standing.applied_by(new)
        # Prompt, model, and so on are still those of the start, whatever the file contains.
        in_force = self.settings.model_copy(update={"limits": settings.limits, "notify": settings.notify})
        actions = self._target.actions(changes, in_force)
        change = self._standing.take(new)
        for put_into_force in actions:
            put_into_force()
        if changes:
            self.settings = in_force
            self._target.take_over(in_force)
        return change


# -- the actions: each validates the settings, and raises ConfigError or returns a function that applies them ----------


def _concurrency(controls: Controls, settings: Settings) -> Action:
    concurrency, admission = settings.limits.concurrency, controls.admission
    tuner = tuner_of(settings, start=admission.gate.concurrency)

    def put_into_force() -> None:
        admission.tuner = tuner
        admission.gate.set_concurrency(tuner.limit if tuner is not None else int(concurrency))

    return put_into_force


def _rates(controls: Controls, settings: Settings) -> Action:
    limits = settings.limits
    return lambda: controls.admission.resource.configure(limits.requests_per_minute, limits.tokens_per_minute)


def _day(controls: Controls, settings: Settings) -> Action:
    limits = settings.limits
    return partial(controls.admission.set_day_limit, limits.requests_per_day, stop=limits.on_day_limit == "stop")


def _budget(controls: Controls, settings: Settings) -> Action:
    limits, admission = settings.limits, controls.admission
    try:
        budget_of(settings, spent_usd=0.0, spent_tokens=0)  # refuses what cannot work
    except ConfigError as error:
        raise ConfigError(
            f"{error}. [model] cannot change during a run: drain the run, set it, and start again"
        ) from error

    def put_into_force() -> None:
        if admission.budget is not None and not admission.is_budget_shared:
            admission.budget.set_caps(usd=limits.budget_usd, tokens=limits.budget_tokens)
            admission.gate.wake()

    return put_into_force


def _hours(controls: Controls, settings: Settings) -> Action:
    return partial(controls.admission.set_hours, hours_of(settings))


def _rules(controls: Controls, settings: Settings) -> Action:
    rules = rules_of(settings)

    def put_into_force() -> None:
        controls.asker.judge.rules = rules
        controls.admission.gate.set_probe_max(settings.limits.probe_max_s)

    return put_into_force


def _notify(controls: Controls, settings: Settings) -> Action:
    targets = notify_targets(settings)
    Notifier(*targets)  # refuses what cannot work
    return partial(controls.notifier.change, *targets)


#: The keys that each action applies. `take_over` reads the others from the new settings.
_ACTIONS: Mapping[Callable[[Controls, Settings], Action], Set[str]] = {
    _concurrency: {"limits.concurrency", "limits.concurrency_max"},
    _rates: {"limits.requests_per_minute", "limits.tokens_per_minute"},
    _day: {"limits.requests_per_day", "limits.on_day_limit"},
    _budget: {"limits.budget_usd", "limits.budget_tokens"},
    _hours: {"limits.run_between"},
    _rules: {
        "limits.max_attempts",
        "limits.max_repairs",
        "limits.hedge_after_p",
        "limits.probe_max_s",
        "limits.stop_rejected",
    },
    _notify: {"notify.url", "notify.command", "notify.on"},
}


def facts_of(settings: Settings) -> dict[str, Any]:
    """Return the limits in force, for a status."""
    return {key: value for key, value in codec.flatten(settings.model_dump()).items() if key.startswith("limits.")}
