"""`auto` against simulated servers, on a simulated clock: it comes near the best concurrency, and stays there.

Times are in seconds where a call alone takes one: "300" is 300 latencies. A server shares its speed among the calls
that it works on; a client keeps `limit` calls in flight, as the gate does.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.limits.latency import Level, doubt, follows, measure, pooled
from pipeline.limits.tuner import Tuner

Speed = Callable[[int, float], float]
Work = Callable[[random.Random], float]

HIGHEST = 512


@dataclass(frozen=True)
class Server:
    """`speed(n, now)` is how fast each of n calls goes, `work` how long a call takes alone."""

    speed: Speed
    work: Work
    refuses_beyond: float = math.inf
    serves: float = math.inf
    changes: tuple[float, ...] = ()


@dataclass
class Trace:
    """What a run was like: (time, limit) at each change, and when answers came."""

    limits: list[tuple[float, int]]
    answers: list[float] = field(default_factory=list)
    refused: int = 0
    timed_out: int = 0

    def rate(self, begin: float, end: float) -> float:
        """Answers a second."""
        return sum(begin <= at < end for at in self.answers) / (end - begin)

    def spread(self, begin: float, end: float) -> float:
        """(highest - lowest) / mean of the limit."""
        ends = [at for at, _ in self.limits[1:]] + [end]
        spans = [
            (min(until, end) - max(at, begin), limit)
            for (at, limit), until in zip(self.limits, ends, strict=True)
            if until > begin and at < end
        ]
        mean = sum(span * limit for span, limit in spans) / (end - begin)
        return (max(limit for _, limit in spans) - min(limit for _, limit in spans)) / mean


@dataclass
class Fixed:
    """A concurrency that somebody knew beforehand."""

    limit: int

    def on_answer(self, latency_s: float, now: float, in_flight: int) -> None: ...


class Simulation:
    """One client and one server, from event to event."""

    def __init__(
        self, tuner: Tuner | Fixed, server: Server, seed: int, *, rate: float = 0, timeout_s: float = 0
    ) -> None:
        self.tuner, self.server, self.rng = tuner, server, random.Random(seed)
        self.gap_s, self.timeout_s = (1 / rate if rate else 0.0), timeout_s
        self.now = self.done = self.next_at = 0.0  # `done` is what a call that is always there would have got
        self.sent: dict[int, float] = {}
        self.working: list[tuple[float, int]] = []
        self.waiting: list[int] = []
        self.timers: list[tuple[float, bool, int]] = []
        self.changes = [*server.changes, math.inf]
        self.trace = Trace([(0.0, tuner.limit)])
        self.count = 0

    def run(self, seconds: float) -> Trace:
        while self.now < seconds:
            while len(self.sent) < self.tuner.limit and self.now >= self.next_at:
                self._send()
            self._step(seconds)
            if self.tuner.limit != self.trace.limits[-1][1]:
                self.trace.limits.append((self.now, self.tuner.limit))
        return self.trace

    def _send(self) -> None:
        self.count += 1
        refuse = len(self.working) + len(self.waiting) >= self.server.refuses_beyond
        self.sent[self.count] = self.now
        if self.gap_s:
            self.next_at = max(self.next_at, self.now - 0.02) + self.gap_s
        if refuse or self.timeout_s:
            heapq.heappush(self.timers, (self.now + (0.05 if refuse else self.timeout_s), refuse, self.count))
        if not refuse:
            self.waiting.append(self.count)
            self._serve()

    def _serve(self) -> None:
        while self.waiting and len(self.working) < self.server.serves:
            heapq.heappush(self.working, (self.done + self.server.work(self.rng), self.waiting.pop(0)))

    def _step(self, seconds: float) -> None:
        speed = self.server.speed(len(self.working), self.now)
        answer_at = self.now + (self.working[0][0] - self.done) / speed if self.working else math.inf
        timer_at = self.timers[0][0] if self.timers else math.inf
        send_at = self.next_at if self.next_at > self.now and len(self.sent) < self.tuner.limit else math.inf
        at = min(answer_at, timer_at, send_at, self.changes[0], seconds)
        self.done += (at - self.now) * speed
        self.now = at
        if at == self.changes[0]:
            self.changes.pop(0)
        elif at == answer_at:
            self._answer(heapq.heappop(self.working)[1])
        elif at == timer_at:
            self._timer(*heapq.heappop(self.timers)[1:])

    def _answer(self, call: int) -> None:
        in_flight = len(self.sent)
        self.trace.answers.append(self.now)
        self.tuner.on_answer(self.now - self.sent.pop(call), self.now, in_flight)
        self._serve()

    def _timer(self, refused: bool, call: int) -> None:
        if call not in self.sent:
            return
        waited_s = self.now - self.sent.pop(call)
        if refused:
            self.trace.refused += 1
            self.next_at = self.now + 0.5  # as the gate does: everyone waits
            return
        self.trace.timed_out += 1
        self.waiting = [other for other in self.waiting if other != call]
        self.working = [(end, other) for end, other in self.working if other != call]
        heapq.heapify(self.working)
        self._serve()
        self.tuner.on_answer(waited_s, self.now, len(self.sent) + 1)


def free(calls: int, now: float) -> float:
    return 1.0


def shared(capacity: int) -> Speed:
    """Throughput stays, latency grows."""
    return lambda calls, now: min(1.0, capacity / max(calls, 1))


def falling(capacity: int) -> Speed:
    """Latency doubles at once beyond the capacity, so that throughput falls to a half, and stays there."""
    return lambda calls, now: 1.0 if calls <= capacity else capacity / (2 * calls)


def stepped(capacity: int) -> Speed:
    """Latency doubles beyond the capacity and stays: throughput falls to a half, and rises again."""
    return lambda calls, now: 1.0 if calls <= capacity else 0.5


def even(rng: random.Random) -> float:
    return rng.uniform(0.95, 1.05)


def noisy(rng: random.Random) -> float:
    return math.exp(rng.gauss(0, 0.5))


def partly_slow(rng: random.Random) -> float:
    """Each tenth takes 20 times as long."""
    return 20.0 if rng.random() < 0.1 else 1.0


def tuner(highest: int = HIGHEST) -> Tuner:
    return Tuner(lowest=1, highest=highest)


SERVERS = {
    "shared": (Server(shared(64), even), 64),
    "shared, noisy": (Server(shared(64), noisy), 64),
    "shared, partly slow": (Server(shared(64), partly_slow), 64),
    "between doublings": (Server(shared(100), even), 100),
    "falling": (Server(falling(64), even), 64),
    "falling, noisy": (Server(falling(64), noisy), 64),
    "falling, partly slow": (Server(falling(64), partly_slow), 64),
    "queue": (Server(free, noisy, serves=64), 64),
}


@pytest.mark.parametrize("name", SERVERS)
def test_settles_near_the_best_fixed_concurrency_and_stays(name: str) -> None:
    server, best = SERVERS[name]
    trace = Simulation(tuner(), server, 1).run(600)
    known = Simulation(Fixed(best), server, 1).run(600)

    assert trace.rate(300, 600) > 0.85 * known.rate(300, 600)
    assert trace.rate(0, 600) > 0.8 * known.rate(0, 600)
    assert trace.spread(300, 600) < 0.27


def test_grows_to_the_ceiling_by_doubling() -> None:
    auto = tuner()
    trace = Simulation(auto, Server(free, even), 1).run(60)

    assert [limit for _, limit in trace.limits][:7] == [8, 16, 32, 64, 128, 256, 512]
    assert trace.limits[6][0] < 25  # seven windows of two latencies, and as long to settle


def test_looks_behind_a_doubling_that_brought_nothing() -> None:
    """64 and 128 in flight bring the same here, 256 twice as much."""
    trace = Simulation(tuner(), Server(stepped(64), even), 1).run(150)

    assert trace.rate(100, 150) > 0.95 * 256


def test_a_latency_near_the_timeout_is_not_driven_further() -> None:
    auto = Tuner(lowest=1, highest=HIGHEST, timeout_s=6.0)
    trace = Simulation(auto, Server(shared(64), even), 1).run(60)

    assert max(limit for _, limit in trace.limits) == 128


@pytest.mark.parametrize("work", [even, noisy, partly_slow])
def test_follows_a_capacity_that_changes(work: Work) -> None:
    def speed(calls: int, now: float) -> float:
        return min(1.0, (16 if 300 <= now < 600 else 64) / max(calls, 1))

    trace = Simulation(tuner(), Server(speed, work, changes=(300, 600)), 1).run(900)
    known = Simulation(Fixed(64), Server(speed, work, changes=(300, 600)), 1).run(900)

    assert trace.rate(750, 900) > 0.8 * known.rate(750, 900)
    assert trace.rate(300, 600) > 0.8 * known.rate(300, 600)


def test_more_work_a_call_is_not_taken_for_a_queue() -> None:
    """From 200 on each call takes 2.5 times as long, at 32 in flight too: less in flight would only lose."""

    def speed(calls: int, now: float) -> float:
        return min(1.0, 64 / max(calls, 1)) * (1 if now < 200 else 0.4)

    trace = Simulation(tuner(), Server(speed, noisy, changes=(200,)), 1).run(500)
    known = Simulation(Fixed(64), Server(speed, noisy, changes=(200,)), 1).run(500)

    assert trace.rate(200, 500) > 0.9 * known.rate(200, 500)


@pytest.mark.parametrize(("rate", "most"), [(30, 50), (300, 500)])
def test_does_not_grow_where_the_rate_is_the_limit_and_does_not_clip_it(rate: int, most: int) -> None:
    """Mean calls in flight are 1.13 x rate: the limit ends above them, not far above, and rests."""
    auto = tuner()
    trace = Simulation(auto, Server(free, noisy), 3, rate=rate).run(400)

    assert rate < auto.limit < most
    assert trace.rate(200, 400) > 0.97 * rate
    assert trace.spread(200, 400) < 0.25


def test_timeouts_shrink_it() -> None:
    """Hardly an answer comes any more: latency cannot tell, the timeouts do."""
    trace = Simulation(
        Tuner(lowest=1, highest=HIGHEST, timeout_s=20),
        Server(lambda calls, now: min(1.0, (64 if now < 100 else 1) / calls), even, changes=(100,)), 1, timeout_s=20,
    ).run(400)  # fmt: skip

    assert trace.limits[-1][1] <= 24


def test_a_few_hung_calls_do_not_shrink_it() -> None:
    def hung(rng: random.Random) -> float:
        return 1e6 if rng.random() < 0.02 else rng.uniform(0.95, 1.05)

    trace = Simulation(tuner(128), Server(free, hung), 1, timeout_s=20).run(200)

    assert trace.timed_out > 100
    assert trace.limits[-1][1] >= 110


def test_trials_that_bring_nothing_get_rarer() -> None:
    trace = Simulation(tuner(), Server(shared(64), even), 1).run(900)

    early, late = (sum(begin <= at < begin + 300 for at, _ in trace.limits) for begin in (50, 600))
    assert 0 < late < 0.6 * early


def test_a_floor_and_a_ceiling_are_kept() -> None:
    low = Simulation(Tuner(lowest=20, highest=30), Server(shared(4), even), 1).run(200)
    high = Simulation(Tuner(lowest=1, highest=30), Server(free, even), 1).run(100)

    assert {limit for _, limit in low.limits} <= set(range(20, 31))
    assert max(limit for _, limit in high.limits) == 30


events = st.tuples(
    st.floats(0, 100),
    st.floats(0, 5),
    st.integers(0, 100),
)


@given(
    lowest=st.integers(1, 40), highest=st.integers(1, 200), start=st.integers(1, 300), events=st.lists(events),
    times=st.integers(1, 40),
)  # fmt: skip
def test_whatever_happens_the_limit_stays_within_its_bounds(
    lowest: int, highest: int, start: int, events: list[tuple[float, float, int]], times: int
) -> None:
    auto, now = Tuner(lowest=lowest, highest=highest, start=start), 0.0
    for latency_s, passed_s, number in events:
        now += passed_s
        for _ in range(times):
            auto.on_answer(latency_s, now, min(number, auto.limit))
        assert lowest <= auto.limit <= max(lowest, highest)
        assert isinstance(auto.limit, int)


def test_a_tenth_of_slow_calls_does_not_move_a_level() -> None:
    assert measure([1.0] * 14 + [20.0] * 2, 16).latency_s == 1.0


def test_follows_is_1_where_throughput_does_and_0_where_latency_grows_instead() -> None:
    base = Level(64, 1.0, 0.5, 100)

    assert follows(base, Level(80, 1.0, 0.5, 100)) == pytest.approx(1)
    assert follows(base, Level(80, 1.25, 0.5, 100)) == pytest.approx(0)
    assert follows(base, Level(48, 0.75, 0.5, 100)) == pytest.approx(0)
    assert follows(base, base) == 0
    assert doubt(base, base) == math.inf


def test_pooled_windows_are_surer_than_single_ones() -> None:
    level = Level(64, 1.0, 0.5, 100)

    assert pooled([level] * 4).error == pytest.approx(level.error / 2)
