"""What the endpoint writes down about one lane. Times are `time.monotonic()`, the same for every process here."""

from __future__ import annotations

from collections import Counter
from typing import Any

BIN_S = 0.1


class Books:
    """Calls by record, by ending and by tenth of a second."""

    def __init__(self) -> None:
        self.calls = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.first_at: float | None = None
        self.last_at: float | None = None
        self.ended_at: float | None = None
        self.work_s = 0.0
        self.billed_tokens = 0
        self.outage: tuple[float, float] | None = None
        self.endings: Counter[str] = Counter()
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self._arrivals: Counter[int] = Counter()
        self._passed: Counter[int] = Counter()
        self._in_flight: dict[int, int] = {}

    def arrive(self, record: int, now: float) -> int:
        """A call came; gives how many have come for this record."""
        self.calls += 1
        self.first_at = self.first_at or now
        self.last_at = now
        self._arrivals[int(now / BIN_S)] += 1
        self.asked[record] += 1
        return self.asked[record]

    def passed(self, now: float) -> None:
        """The call got past limits, outage and quota."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._passed[int(now / BIN_S)] += 1
        self._in_flight[int(now / BIN_S)] = self.in_flight

    def ended(self, record: int, ending: str, now: float) -> None:
        """A call that had passed ended; `ok` is an answer that was paid for, whether anyone was there to read it."""
        self.in_flight -= 1
        self.ended_at = now
        self.endings[ending] += 1
        if ending == "ok":
            self.answered[record] += 1

    def as_plain(self, *, records: bool) -> dict[str, Any]:
        """Plain values for JSON; with `records` also [calls, answers] of each.

        Bins are [start, arrivals, passed]; levels are [start, in flight after the last that passed].
        """
        plain: dict[str, Any] = {
            "calls": self.calls,
            "answers": self.endings["ok"],
            "answered_records": len(self.answered),
            "paid_twice": sum(self.answered.values()) - len(self.answered),
            "endings": dict(self.endings),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "ended_at": self.ended_at,
            "work_s": self.work_s,
            "billed_tokens": self.billed_tokens,
            "outage": self.outage,
            "bins": [[at * BIN_S, count, self._passed[at]] for at, count in sorted(self._arrivals.items())],
            "levels": [[at * BIN_S, count] for at, count in sorted(self._in_flight.items())],
        }
        if records:
            plain["records"] = {str(record): [count, self.answered[record]] for record, count in self.asked.items()}
        return plain
