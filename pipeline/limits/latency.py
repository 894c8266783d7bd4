"""Measures what a number of calls in flight achieves, unaffected by a tenth of slow calls. Arithmetic only.

Throughput is that of Little's law, calls in flight / typical latency. The typical latency is the mean of the middle
half of a window's answers. A plain mean costs 3 points of the share used if a tenth of the calls is slow; counting
answers instead would let a few slow calls, or a pause, decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: The deviation of a normal distribution per width of its middle half, which is 1.35 deviations; times 1.1, because the
#: mean of that half scatters more than the mean of all.
_OF_HALF_WIDTH = 1.1 / 1.35


@dataclass(frozen=True, slots=True)
class Level:
    """A measurement. `scatter` is the deviation of single latencies, as a share of the typical one."""

    in_flight: float
    latency_s: float
    scatter: float
    answers: int

    @property
    def throughput(self) -> float:
        """Answers per second, by Little's law."""
        return self.in_flight / self.latency_s

    @property
    def error(self) -> float:
        """The standard error of the latency, and so of the throughput, as a share of it."""
        return self.scatter / math.sqrt(self.answers)


class Window:
    """The answers since a moment."""

    __slots__ = ("answers", "began_at")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        # Mutable state: the latency of each, and the calls in flight at its end.
        self.answers: list[tuple[float, int]] = []

    def level(self) -> Level:
        """Return the level of the answers so far, of which there must be some."""
        latencies, in_flight = zip(*self.answers, strict=True)
        return measure(latencies, math.fsum(in_flight) / len(latencies))


def measure(latencies: Sequence[float], in_flight: float) -> Level:
    """Return the level of these latencies: mean and scatter of their middle half."""
    ordered = sorted(latencies)
    quarter = len(ordered) // 4
    middle = ordered[quarter : len(ordered) - quarter]
    typical_s = max(math.fsum(middle) / len(middle), 1e-9)
    scatter = _OF_HALF_WIDTH * (middle[-1] - middle[0]) / typical_s
    return Level(in_flight, typical_s, scatter, len(ordered))


def pooled(levels: Iterable[Level]) -> Level:
    """Return several windows at one limit as one."""
    known = list(levels)
    answers = sum(level.answers for level in known)
    share = [level.answers / answers for level in known]
    return Level(
        sum(part * level.in_flight for part, level in zip(share, known, strict=True)),
        math.exp(sum(part * math.log(level.latency_s) for part, level in zip(share, known, strict=True))),
        math.sqrt(sum(part * level.scatter**2 for part, level in zip(share, known, strict=True))),
        answers,
    )


def follows(base: Level, trial: Level) -> float:
    """Return how far throughput follows the calls in flight: 1 fully, 0 not at all, below 0 inversely."""
    step = math.log(trial.in_flight / base.in_flight)
    return math.log(trial.throughput / base.throughput) / step if step else 0.0


def doubt(base: Level, trial: Level) -> float:
    """Return the standard error of `follows`."""
    step = abs(math.log(trial.in_flight / base.in_flight))
    return math.hypot(base.error, trial.error) / step if step else math.inf
