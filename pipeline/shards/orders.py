"""Applies orders and config edits that arrive while the shards are running."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.control import Inbox, SettingChange, SettingChanges, applied_line, refused_line
from pipeline.leases import LeaseService
from pipeline.parts import budget_of, hours_of, notify_targets, rules_of, tuner_of
from pipeline.runner import Action, ControlLoop
from pipeline.settings import Settings
from pipeline.shards.coordinator import caps_of

_RATES = {"limits.requests_per_minute", "limits.tokens_per_minute"}
_DAY = {"limits.requests_per_day", "limits.on_day_limit"}
_BUDGET = {"limits.budget_usd", "limits.budget_tokens"}
#: Limits that are divided among the shards.
_IN_PARTS = {"limits.concurrency", "limits.concurrency_max"}


class Orders:
    """Applies orders and config edits to all shards.

    The lease service applies the limits that all shards have in common. Other orders are forwarded to each shard, even
    if it starts later. Shards read edits of the config themselves. Notifications belong to the whole run.
    """

    def __init__(self, settings: Settings, service: LeaseService, echo: Callable[[str], None]) -> None:
        self._service = service
        self.echo = echo
        self._steering = ControlLoop(settings, self, Inbox(Path(settings.output.dir)))

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._steering.settings

    def poll(self) -> None:
        """Apply what has arrived since the last poll."""
        self._steering.check()

    # -- what ControlLoop calls ------------------------------------------------------------------------------------

    def take_over(self, settings: Settings) -> None:
        """Do nothing: `actions` applies each change."""

    def pause(self, paused: bool) -> str:
        """Pause or resume granting."""
        self._service.set_paused(paused)
        return "paused; the calls in flight finish, and nothing new is sent" if paused else "continues"

    def drain(self) -> str:
        """Ask all shards to end."""
        self._service.stop("drained", "drained by order; the same command resumes it")
        return "draining; the calls in flight finish, then the run ends"

    def actions(self, changes: Sequence[SettingChange], settings: Settings) -> Sequence[Action]:
        """Return the actions that apply a change to the lease service and forward the rest. Raises ConfigError."""
        # Refuse here what the shards would refuse.
        budget_of(settings, spent_usd=0.0, spent_tokens=0)
        hours_of(settings), rules_of(settings), notify_targets(settings), tuner_of(settings)
        limits, keys = settings.limits, {one.key for one in changes}
        actions: list[Action] = []
        if keys & _RATES:
            rates = (limits.requests_per_minute, limits.tokens_per_minute)
            actions.append(partial(self._service.resource.configure, *rates))
        if keys & _DAY:
            stop = limits.on_day_limit == "stop"
            actions.append(partial(self._service.set_day_limit, limits.requests_per_day, stop=stop))
        if keys & _BUDGET:
            actions.append(partial(self._service.set_caps, caps_of(settings)))
        shared = _RATES | _DAY | _BUDGET
        others = {one.key: one.new for one in changes if one.key.startswith("limits.") and one.key not in shared}
        return [*actions, partial(self._forward, others)] if others else actions

    def describe(self, change: SettingChanges, source: str) -> Sequence[str]:
        """Return the new values as text, as they apply to all shards."""
        lines = [
            f"{one.key} is {_format_value(one.new)} for all shards ({source})"
            if one.key.startswith("limits.")
            else applied_line(one, source)
            for one in change.applied
        ]
        return lines + [refused_line(one.key) for one in change.refused]

    # -- the shards ------------------------------------------------------------------------------------------------

    def _forward(self, changes: dict[str, Any]) -> None:
        # A key that is removed from the config is also removed from the overrides.
        words = {**self._service.overrides, **{key: self._part_of(key, value) for key, value in changes.items()}}
        self._service.overrides = {key: value for key, value in words.items() if value is not None}

    def _part_of(self, key: str, value: Any) -> str | None:
        if key in _IN_PARTS and isinstance(value, int):
            value = math.ceil(value / max(1, self._service.shards))
        return value if value is None or isinstance(value, str) else codec.dumps(value).decode()


def _format_value(value: Any) -> str:
    return (
        "none" if value is None else str(value) if isinstance(value, int | float | str) else codec.dumps(value).decode()
    )
