"""Changes in mid-run: orders from another terminal and edits of the config, taken over within a second or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.control import (
    LIVE_KEYS,
    ConfigWatch,
    Inbox,
    LiveChange,
    Order,
    Shift,
    Standing,
    applied_line,
    flat,
    refused_line,
)
from pipeline.engine import Asker
from pipeline.errors import ConfigError, LabelpipeError
from pipeline.limits import Admission
from pipeline.notify import Notifier
from pipeline.runner.parts import budget_of, hours_of, notified_of, rules_of, tuner_of
from pipeline.settings import Settings


class DrainedError(LabelpipeError):
    """Drained by order; the same command goes on."""

    code = "drained"


@dataclass(frozen=True, slots=True)
class Helm:
    """What can be changed while it runs, and how the run is told of it."""

    asker: Asker
    admission: Admission
    notifier: Notifier
    stop: Callable[[LabelpipeError], None]
    say: Callable[[str], None]
    take_over: Callable[[Settings], None]


class Steering:
    """Looks for orders and edits, once a second."""

    def __init__(self, settings: Settings, helm: Helm, inbox: Inbox) -> None:
        self._helm = helm
        self._inbox = inbox
        self._watch = None if settings.config_path is None else ConfigWatch(settings.config_path)
        self._standing = Standing(flat(settings.model_dump()))
        # All state that changes, beside the parts: the settings in force, and what orders have set over the file.
        self.settings = settings
        self._live: dict[str, str] = {}

    def look(self) -> None:
        """Carry out what came since the last look."""
        for order in self._inbox.read_new():
            ok, text = self._obey(order)
            self._inbox.answer(order, ok, text)
            self._helm.say(f"labelpipe: {order.verb}: {text}")
        if self._watch is not None and self._watch.changed():
            self._reread(self._watch)

    # -- orders --------------------------------------------------------------------------------------------------

    def _obey(self, order: Order) -> tuple[bool, str]:
        gate = self._helm.admission.gate
        if order.verb == "pause":
            gate.set_paused(True)
            return True, f"paused; {gate.in_flight} calls in flight end, nothing new leaves"
        if order.verb == "resume":
            gate.set_paused(False)
            return True, "goes on"
        if order.verb == "drain":
            self._helm.stop(DrainedError())
            return True, f"draining; {gate.in_flight} calls in flight end, then the run does"
        return self._set(str(order.key), order.value)

    def _set(self, key: str, value: object) -> tuple[bool, str]:
        if key not in LIVE_KEYS:
            return False, refused_line(key, lasting=False)
        text = f"{key}={value}"  # read as --set is
        try:
            settings = self.settings.again([*(self._live | {key: text}).values()])
            change = self._apply(settings)
        except ConfigError as error:
            return False, str(error)
        self._live[key] = text
        told = [applied_line(one, "set") for one in change.applied]
        return True, "; ".join(told) or f"{key} is that already"

    # -- the config file -----------------------------------------------------------------------------------------

    def _reread(self, watch: ConfigWatch) -> None:
        source = str(self.settings.config_path)
        try:
            change = self._apply(self.settings.again(list(self._live.values())))
        except ConfigError as error:
            if watch.is_news():
                self._helm.say(f"labelpipe: {source} was edited, but is not taken over:\n{error}")
            return
        watch.is_good()
        for line in change.lines(source):
            self._helm.say(f"labelpipe: {line}")

    def _apply(self, settings: Settings) -> LiveChange:
        """Put what may change into force. Raises ConfigError, and then all stays as it was."""
        change = self._standing.take(flat(settings.model_dump()))
        try:
            for tables in _groups(change.applied):
                _ACTS[tables](self._helm, settings)
        except ConfigError:
            self._standing.undo(change.applied)
            raise
        if change.applied:
            self.settings = settings
            self._helm.take_over(settings)
        return change


def _groups(applied: Sequence[Shift]) -> list[str]:
    """Which acts the changed keys ask for, each once."""
    return list(dict.fromkeys(_ACT_OF[one.key] for one in applied if one.key in _ACT_OF))


def _concurrency(helm: Helm, settings: Settings) -> None:
    wanted = settings.limits.concurrency
    helm.admission.tuner = tuner_of(settings, start=helm.admission.gate.concurrency)
    if wanted != "auto":
        helm.admission.gate.set_concurrency(wanted)


def _rates(helm: Helm, settings: Settings) -> None:
    helm.admission.request_pace.configure(settings.limits.requests_per_minute)
    helm.admission.token_pace.configure(settings.limits.tokens_per_minute)
    helm.admission.rates_changed()


def _day(helm: Helm, settings: Settings) -> None:
    helm.admission.set_day_limit(settings.limits.requests_per_day)


def _budget(helm: Helm, settings: Settings) -> None:
    limits, budget = settings.limits, helm.admission.budget
    if budget is None:
        raise ConfigError("a budget can be changed in mid-run, but not begin there; it takes effect with the next run")
    budget_of(settings, spent_usd=0.0, spent_tokens=0)  # refuses what cannot work
    budget.set_caps(usd=limits.budget_usd, tokens=limits.budget_tokens)
    helm.admission.gate.wake()


def _hours(helm: Helm, settings: Settings) -> None:
    helm.admission.set_hours(hours_of(settings))


def _rules(helm: Helm, settings: Settings) -> None:
    helm.asker.rules = rules_of(settings)
    helm.admission.gate.set_probe_max(settings.limits.probe_max_s)


def _notify(helm: Helm, settings: Settings) -> None:
    helm.notifier.change(*notified_of(settings))


def _nothing(_helm: Helm, _settings: Settings) -> None:
    """What `take_over` reads from the new settings by itself."""


_ACTS: Mapping[str, Callable[[Helm, Settings], None]] = {
    "concurrency": _concurrency,
    "rates": _rates,
    "day": _day,
    "budget": _budget,
    "hours": _hours,
    "rules": _rules,
    "notify": _notify,
    "nothing": _nothing,
}
_ACT_OF: Mapping[str, str] = {
    "limits.concurrency": "concurrency",
    "limits.requests_per_minute": "rates",
    "limits.tokens_per_minute": "rates",
    "limits.requests_per_day": "day",
    "limits.budget_usd": "budget",
    "limits.budget_tokens": "budget",
    "limits.stop_at": "nothing",
    "limits.run_between": "hours",
    "limits.max_attempts": "rules",
    "limits.max_repairs": "rules",
    "limits.hedge_after_p": "rules",
    "limits.record_deadline_s": "rules",
    "limits.probe_max_s": "rules",
    "limits.outage_limit_s": "nothing",
    "limits.stall_s": "nothing",
    "notify.url": "notify",
    "notify.command": "notify",
    "notify.on": "notify",
}


def facts_of(settings: Settings) -> dict[str, Any]:
    """The limits in force, for a status."""
    return {key: value for key, value in flat(settings.model_dump()).items() if key.startswith("limits.")}
