"""The kinds of servers that people meet, as scenes to simulate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.rules import Limit, Rules
from benchmarks.simulation import Scene

RATE = 600
_S = RATE / 60


def _gives(
    kind: str,
    span_s: float,
    retry_after: str,
    *,
    headers: bool = False,
    per_minute: float = RATE,
    latency_s: float = 0.5,
) -> Rules:
    """A server with this limit. Its bucket holds a tenth at the start, so that its content is soon gone."""
    limit = Limit(kind, per_minute, span_s, 0.1 if span_s > 1 else 1.0, headers=headers, retry_after=retry_after)
    return Rules(latency_s=latency_s, limit=limit)


_TWICE = 2.0 * RATE


def _auto(rules: Rules, best_per_s: float, **more: Any) -> Scene:
    """Calls of a second each, and nobody says how many at once."""
    return Scene(rules, concurrency=None, seconds=200.0, since_s=80.0, best_per_s=best_per_s, **more)


SCENES: Mapping[str, Scene] = {
    # The config promises twice what the server gives.
    "twice, bucket 60 s, ms": Scene(_gives("bucket", 60, "ms"), _TWICE),
    "twice, bucket 60 s, s": Scene(_gives("bucket", 60, "s"), _TWICE),
    "twice, bucket 60 s, no word": Scene(_gives("bucket", 60, "none"), _TWICE),
    "twice, bucket 60 s, headers": Scene(_gives("bucket", 60, "s", headers=True), _TWICE),
    "twice, bucket 1 s, ms": Scene(_gives("bucket", 1, "ms"), _TWICE),
    "twice, bucket 1 s, s": Scene(_gives("bucket", 1, "s"), _TWICE),
    "twice, bucket 1 s, no word": Scene(_gives("bucket", 1, "none"), _TWICE),
    "twice, bucket 1 s, headers": Scene(_gives("bucket", 1, "s", headers=True), _TWICE),
    "twice, window 10 s, s": Scene(_gives("window", 10, "s"), _TWICE),
    "twice, window 60 s, ms": Scene(_gives("window", 60, "ms"), _TWICE, seconds=180.0, since_s=60.0),
    "twice, fixed 60 s, s": Scene(_gives("fixed", 60, "s"), _TWICE, seconds=200.0, since_s=80.0),
    "twice, fixed 1 s, ms": Scene(_gives("fixed", 1, "ms"), _TWICE),
    "twice, fixed 10 s, no word": Scene(_gives("fixed", 10, "none"), _TWICE),
    "twice, long calls": Scene(_gives("bucket", 60, "ms", latency_s=4.0), _TWICE, concurrency=64),
    "twice, 60 a minute": Scene(_gives("bucket", 1, "s", per_minute=60), 120.0, seconds=480.0, since_s=60.0),
    "twice, 3,000 a minute": Scene(_gives("bucket", 60, "ms", per_minute=3_000), 6_000.0, seconds=60.0),
    "twice, 3,000 a minute, long calls": Scene(
        _gives("bucket", 1, "ms", per_minute=3_000, latency_s=2.0), 6_000.0, concurrency=200, seconds=90.0
    ),
    "a fifth too much, bucket 60 s, s": Scene(_gives("bucket", 60, "s"), 1.2 * RATE),
    "a fifth too much, bucket 1 s, no word": Scene(_gives("bucket", 1, "none"), 1.2 * RATE),
    # The config says what the server gives, or half of it.
    "right, window 1 s, s": Scene(_gives("window", 1, "s"), RATE),
    "right, window 60 s, s": Scene(_gives("window", 60, "s"), RATE),
    "half, bucket 1 s, s": Scene(_gives("bucket", 1, "s"), RATE / 2),
    # The config says nothing.
    "nothing, bucket 60 s, headers": Scene(_gives("bucket", 60, "ms", headers=True)),
    "nothing, bucket 60 s, ms": Scene(_gives("bucket", 60, "ms")),
    "nothing, full bucket 60 s, ms": Scene(
        Rules(latency_s=0.2, limit=Limit("bucket", RATE, 60, retry_after="ms")), seconds=160.0, since_s=60.0
    ),
    "nothing, bucket 1 s, s": Scene(_gives("bucket", 1, "s")),
    "nothing, bucket 1 s, no word": Scene(_gives("bucket", 1, "none")),
    "nothing, window 10 s, s": Scene(_gives("window", 10, "s")),
    "nothing, window 10 s, 3,000 a minute": Scene(
        _gives("window", 10, "ms", per_minute=3_000, latency_s=0.2), seconds=150.0, since_s=30.0
    ),
    "nothing, fixed 60 s, s": Scene(_gives("fixed", 60, "s"), seconds=200.0, since_s=80.0),
    # Words that are not true.
    "lies, always 0.1 s": Scene(_gives("bucket", 60, "0.1"), _TWICE),
    "lies, always 5 s": Scene(_gives("bucket", 60, "5"), _TWICE),
    "lies, always 30 s": Scene(_gives("bucket", 60, "30"), _TWICE, seconds=160.0, since_s=60.0),
    "lies, one answer in 50 says one a minute": Scene(_gives("bucket", 60, "s", headers=True), _TWICE, slips=0.02),
    # The rate changes.
    "falls to half, ms": Scene(_gives("bucket", 60, "ms"), _TWICE, changes=(60.0, RATE / 2)),
    "doubles, ms": Scene(_gives("bucket", 60, "ms"), _TWICE, changes=(60.0, _TWICE), seconds=180.0),
    # Refusals that are about no rate.
    "5 % refused, 1 s": Scene(
        Rules(latency_s=0.5, limit=Limit("bucket", RATE * 2, 60)), RATE, busy=0.05, best_per_s=0.95 * _S
    ),
    "5 % refused, no word": Scene(Rules(latency_s=0.5), RATE, busy=0.05, busy_wait_s=None, best_per_s=0.95 * _S),
    "5 % refused, no config, 1 s": Scene(Rules(latency_s=0.5), busy=0.05, concurrency=16, best_per_s=0.95 * 16 / 0.52),
    "a fifth refused, 1 s": Scene(Rules(latency_s=0.5), RATE, busy=0.2, best_per_s=0.8 * _S),
    "5 % refused over a bucket": Scene(_gives("bucket", 60, "ms"), _TWICE, busy=0.05),
    # Other clients of the key.
    "another takes half, bucket, headers": Scene(
        _gives("bucket", 60, "s", headers=True), RATE, seconds=150.0, since_s=30.0, other=(30.0, 120.0, RATE / 2)
    ),
    "another takes half, window, headers": Scene(
        _gives("window", 60, "s", headers=True), RATE, seconds=300.0, since_s=60.0, other=(60.0, 180.0, RATE / 2)
    ),
    "another takes half, bucket, ms": Scene(
        _gives("bucket", 60, "ms"), RATE, seconds=150.0, since_s=30.0, other=(30.0, 120.0, RATE / 2)
    ),
    "three of us, bucket, headers": Scene(_gives("bucket", 60, "s", headers=True), RATE, doors=3, concurrency=24),
    "three of us, bucket, ms": Scene(_gives("bucket", 60, "ms"), RATE, doors=3, concurrency=24),
    "three of us, bucket 1 s, s": Scene(_gives("bucket", 1, "s"), RATE, doors=3, concurrency=24),
    # Limits on calls in flight.
    "16 in flight, 64 in the config, 1 s": Scene(Rules(latency_s=0.5), most_in_flight=16, best_per_s=32.0),
    "16 in flight, 64 in the config, no word": Scene(
        Rules(latency_s=0.5), most_in_flight=16, best_per_s=32.0, busy_wait_s=None
    ),
    "auto, 16 in flight, 1 s": _auto(Rules(latency_s=1.0), 16.0, most_in_flight=16),
    "auto, serves 16 at once": _auto(Rules(latency_s=1.0, knee=16), 16.0),
    "auto, serves 16 at once, scattered": _auto(Rules(latency_s=1.0, knee=16), 16.0, scatter=0.5),
    "auto, a tenth is slow": _auto(Rules(latency_s=1.0, knee=16, slow=0.1, slow_factor=10), 8.4),
    "auto, falls beyond 16": _auto(Rules(latency_s=1.0, knee=16, knee_kind="doubling"), 16.0),
    "auto, falls beyond 3": Scene(
        Rules(latency_s=0.2, knee=3, knee_kind="doubling"),
        best_per_s=15.0,
        seconds=200.0,
        since_s=80.0,
        concurrency=None,
    ),
    "auto, a step at 16, then as before": Scene(
        Rules(latency_s=1.0, knee=16, knee_kind="step"), best_per_s=32.0, seconds=160.0, since_s=80.0, concurrency=None
    ),
    "auto, capacity falls to 8": _auto(
        Rules(latency_s=1.0, knee=16, knee_kind="doubling"), 8.0, knee_changes=(80.0, 8)
    ),
    "auto, capacity rises to 32": _auto(Rules(latency_s=1.0, knee=16), 32.0, knee_changes=(40.0, 32)),
    "auto, times out beyond 16": _auto(Rules(latency_s=1.0, knee=16, knee_kind="doubling"), 16.0, timeout_s=4.0),
    "auto, bucket 60 s, ms": Scene(_gives("bucket", 60, "ms", latency_s=1.0), concurrency=None),
    "auto, bucket 60 s, headers": Scene(_gives("bucket", 60, "ms", headers=True, latency_s=1.0), concurrency=None),
    # The server is away.
    "away for 30 s": Scene(Rules(latency_s=0.5), RATE, outage=(60.0, 90.0), best_per_s=_S),
    "away for 30 s, bucket 1 s": Scene(_gives("bucket", 1, "s"), _TWICE, outage=(60.0, 90.0)),
}
