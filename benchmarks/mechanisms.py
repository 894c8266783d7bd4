"""The mechanisms of `pipeline.limits`, each with what switches it off. Only here: a run has no such switches."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from pipeline.limits import backoff, baseline, gate, latency, meters, other_clients, pace, retry_scope, tuner
from pipeline.units import MINUTE_RESET_S

#: What is put in place of what: (owner, name, replacement). The first one, if it is a function, tells who uses it.
Patch = tuple[Any, str, Any]


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_named: value


def _hold_only_hours(self: backoff.Backoff, wait_s: float, *rest: Any) -> None:
    if wait_s > MINUTE_RESET_S:
        _HOLD(self, wait_s, *rest)


def _end_outage_wide_open(self: gate.Gate, now: float) -> None:
    _END_OUTAGE(self, now)
    self._window = float(self.concurrency)


def _no_first_alone(self: gate.Gate, now: float) -> float:
    if self.last_success_at == -math.inf:
        self._window = float(self.concurrency)
    return _PLACE_DELAY(self, now)


def _go_at_once(self: tuner.Tuner, limit: int, now: float) -> None:
    self.limit = limit
    self._open(now)


def _only_more(self: tuner.Tuner, now: float) -> None:
    if self._step < 0:
        self._fail(now)
    else:
        _BEGIN_TRIAL(self, now)


def _no_faster_far(self: pace.Pace, *of: float) -> int:
    faster = _FASTER(self, *of)
    return 1 if faster == pace.FASTER else faster


def _no_faster_guess(self: pace.Pace, *of: float) -> int:
    return min(pace.FASTER, _FASTER(self, *of))


def _plain_mean(latencies: list[float], in_flight: float) -> latency.Level:
    mean = max(statistics.fmean(latencies), 1e-9)
    return latency.Level(in_flight, mean, statistics.pstdev(latencies) / mean, len(latencies))


_HOLD, _END_OUTAGE, _PLACE_DELAY, _BEGIN_TRIAL, _FASTER = (
    backoff.Backoff._hold, gate.Gate._end_outage, gate.Gate._place_delay_s,
    tuner.Tuner._begin_trial, pace.Pace._faster,
)  # fmt: skip

MECHANISMS: Mapping[str, tuple[Patch, ...]] = {
    "gate: failures of several records are an outage": ((gate.Gate, "on_failure", _always(False)),),
    "gate: after an outage the window ramps": ((gate.Gate, "_end_outage", _end_outage_wide_open),),
    "gate: the first call goes alone": ((gate.Gate, "_place_delay_s", _no_first_alone),),
    "gate: an outage that begins again is the same one": ((gate.Gate, "is_settling", _always(False)),),
    "backoff: everyone waits as a refusal asks": ((backoff.Backoff, "_hold", _hold_only_hours),),
    "backoff: blind waits double": (
        (backoff.Backoff, "on_refusal", None), (backoff, "BLIND_WAIT_MAX_S", backoff.BLIND_WAIT_S),
    ),
    "backoff: the window shrinks when more is refused than answered": ((gate.Gate, "shrink", _always(None)),),
    "backoff: none left in a header holds": ((backoff.Backoff, "on_none_left", _always(None)),),
    "retry scope: whether a wait is for all is tried out": ((retry_scope.RetryScope, "is_for_all", _always(True)),),
    "retry scope: a bad trial is not tried again for a minute": (
        (retry_scope.RetryScope, "is_for_all", None), (retry_scope, "NEXT_TRIAL_S", 0.0),
    ),
    "baseline: a cut that did not help is taken back": ((baseline.Baseline, "test", _always(None)),),
    "baseline: no further cut while one is tested": ((baseline.Baseline, "is_testing", property(_always(False))),),
    "baseline: far more refused, and no test is trusted": (
        (baseline.Baseline, "test", None), (baseline, "FAR_MORE", math.inf),
    ),
    "baseline: what was found is forgotten": ((baseline.Baseline, "share", lambda self, now: self._share),),
    "baseline: a larger share than before is a limit": ((baseline._Test, "is_more", property(_always(False))),),
    "other clients: less is taken where little is left": ((other_clients.OtherClients, "on_headers", _always(None)),),
    "pace: refusals teach a rate": ((pace.Pace, "_is_cut", _always(False)),),
    "pace: headers teach a rate": ((pace.Pace, "on_headers", _always(None)),),
    "pace: one answer that says far less is a slip": ((pace.Pace, "on_headers", None), (pace, "SLIP_ANSWERS", 1)),
    "pace: few refusals are noise": (
        (pace.Pace, "_is_cut", None), (pace, "NOISE_COUNT", 1), (pace, "NOISE_SHARE", 0.0),
    ),
    "pace: what passed since refusals began is measured": ((pace.Pace, "_exact", _always(None)),),
    "pace: that measurement is waited for": ((pace.Pace, "_is_soon_known", _always(False)),),
    "pace: half of what passed is guessed": ((pace.Pace, "_guess", _always(None)),),
    "pace: a guess that is too high is halved": ((pace.Pace, "_guess_lower", _always(None)),),
    "pace: slow growth near the last cut": ((pace.Pace, "_is_near", _always(False)),),
    "pace: fast growth far from it": ((pace.Pace, "_faster", _no_faster_far),),
    "pace: a guess grows fastest": ((pace.Pace, "_faster", _no_faster_guess),),
    "pace: growth at all": ((pace.Pace, "_grow", _always(None)),),
    "pace: a cut has a floor": ((pace.Pace, "_deepest", _always(0.0)),),
    "pace: a cut soon after another is gentle": ((pace.Pace, "_deepest", None), (pace, "GENTLE_CUT", pace.DEEPEST_CUT)),
    "pace: 98 % of what passed": ((pace.Pace, "_cut", None), (pace, "CUT_TO", 1.0)),
    "meters: 99 % of a limit": ((meters.Meter, "set_limit", None), (meters, "HEADROOM", 1.0)),
    "meters: lost time is caught up": ((meters.Meter, "_steer", _always(None)),),
    "meters: known pauses are not caught up": ((meters.Meter, "skip", _always(None)),),
    "tuner: a doubling that brings nothing is looked behind": ((tuner.Tuner, "_may_look_behind", _always(False)),),
    "tuner: trials at the base": ((tuner.Tuner, "_is_ready", _always(False)),),
    "tuner: trials of fewer calls": ((tuner.Tuner, "_begin_trial", _only_more),),
    "tuner: trials get rarer": ((tuner.Tuner, "_fail", None), (tuner, "PAUSE_MOST", tuner.PAUSE_FIRST)),
    "tuner: trials get smaller": ((tuner.Tuner, "_fail", None), (tuner, "STEP_FIRST", 2 * tuner.STEP_FIRST)),
    "tuner: answers to both limits are left out": ((tuner.Tuner, "_go", _go_at_once),),
    "latency: the middle half of the latencies": ((latency, "measure", _plain_mean),),
}  # fmt: skip


@contextlib.contextmanager
def without(mechanism: str | None) -> Iterator[None]:
    """With this mechanism switched off; None: with all of them."""
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in MECHANISMS[mechanism] if mechanism is not None else ():
            if replacement is not None:
                stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


@contextlib.contextmanager
def noted() -> Iterator[set[str]]:
    """Gathers the mechanisms that are used meanwhile."""
    used: set[str] = set()
    with contextlib.ExitStack() as stack:
        for owner, name in {patches[0][:2] for patches in MECHANISMS.values()}:
            at = [one for one, patches in MECHANISMS.items() if patches[0][:2] == (owner, name)]
            stack.enter_context(mock.patch.object(owner, name, _noting(vars(owner)[name], at, used)))
        yield used


def _noting(real: Any, mechanisms: list[str], used: set[str]) -> Any:
    """The real thing, which notes that it was used."""
    function: Any = getattr(real, "fget", real)

    def call(*args: Any, **named: Any) -> Any:
        used.update(mechanisms)
        return function(*args, **named)

    return property(call) if isinstance(real, property) else call
