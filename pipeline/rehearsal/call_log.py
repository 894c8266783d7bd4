"""Logs what happened at the endpoint, in total and for each record. Tests use it as evidence."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.codec import JSONDecodeError, dumps, loads

#: How a call ended, unless it ended in a fault kind, "outage", "quota", or "invalid".
ANSWERED = "answered"
REFUSED = "refused"


@dataclass(slots=True, eq=False)
class RecordCalls:
    """One record's calls. Slotted, because each record of a run has one.

    calls = answered + refused + the sum of failed, if none is in flight. `answered` counts good completions. `failed`
    counts everything else by kind, including completions that a fault made unusable. `tokens` are those billed, good
    or not. `lost` answers were billed and reached nobody. `served` calls passed the limits.
    """

    name: str
    calls: int = 0
    answered: int = 0
    refused: int = 0
    served: int = 0
    lost: int = 0
    tokens: int = 0
    changed: int = 0
    text: str | None = None
    _failed: dict[str, int] | None = None

    @property
    def failed(self) -> Mapping[str, int]:
        """The number of failed calls by kind."""
        return self._failed or {}

    @property
    def label(self) -> Any:
        """The label of the last good answer, or its text if it is not JSON; None if there is none."""
        try:
            return None if self.text is None else loads(self.text)
        except JSONDecodeError:
            return self.text

    def count(self, what: str) -> None:
        """Count a call that ended this way."""
        if what == ANSWERED:
            self.answered += 1
        elif what == REFUSED:
            self.refused += 1
        else:
            self._failed = self._failed or {}
            self._failed[what] = self._failed.get(what, 0) + 1

    def as_json(self) -> dict[str, Any]:
        """Return the entry as `GET /books` shows it."""
        names = ("calls", "answered", "refused", "failed", "lost", "tokens", "label")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class CallTotals:
    """The counts over all calls.

    `by_status` counts what was sent, with 0 for calls without a complete answer. `calls_by_second` and
    `answers_by_second` start at the first call. `first_call_at` and `last_call_at` are seconds since 1970.
    """

    records: int
    calls: int
    answered: int
    refused: int
    failed: Mapping[str, int]
    lost: int
    tokens: int
    by_status: Mapping[int, int]
    in_flight: int
    peak_in_flight: int
    calls_by_second: list[int]
    answers_by_second: list[int]
    first_call_at: float | None
    last_call_at: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the counts as a dict."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CallEnding:
    """How one call ended: a line of the log file."""

    what: str
    status: int
    tokens: int = 0
    text: str | None = None
    lost: bool = False


class CallLog:
    """Counts calls when they arrive and when they end.

    With a path, each ended call is also a line of a JSONL file. It reaches the operating system before the answer is
    sent, so killing the server loses nothing. Lines are appended, so the file may span several servers.
    """

    def __init__(self, path: str | Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file: IO[bytes] | None = None
        if path:
            self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - open as long as the books are
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the calls in flight. The file stays, and the next call counts as the first."""
        # Mutable state:
        self.sequence = 0  #: grows with every change, for `GET /books?since=`
        self.calls = 0
        self._entries: dict[str, RecordCalls] = {}
        self._what: Counter[str] = Counter()
        self._status: Counter[int] = Counter()
        self._tokens = self._lost = 0
        self._peak = self.in_flight
        self._calls_at: list[int] = []
        self._answers_at: list[int] = []
        self._first: float | None = None
        self._first_at = self._last_at = 0.0

    def arrive(self) -> None:
        """Count a call that arrives."""
        now = self._clock()
        if self._first is None:
            self._first = now
            self._first_at = time.time()
        self._last_at = self._first_at + now - self._first
        self.calls += 1
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        _count_second(self._calls_at, now - self._first)

    def leave(self) -> None:
        """Count a call as over, however it ended."""
        self.in_flight -= 1

    def since_first_s(self) -> float:
        """Return the seconds since the first call."""
        return 0.0 if self._first is None else self._clock() - self._first

    def entry(self, name: str) -> RecordCalls:
        """Count a call of the record and return its entry, which is created if necessary."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = RecordCalls(name)
        entry.calls += 1
        self.sequence += 1
        entry.changed = self.sequence
        return entry

    def close_call(self, entry: RecordCalls | None, ending: CallEnding) -> None:
        """Record how a call ended. Without an entry (the record is unknown), only the totals change."""
        self.sequence += 1
        self._what[ending.what] += 1
        self._status[ending.status] += 1
        self._tokens += ending.tokens
        self._lost += ending.lost
        if ending.what == ANSWERED:
            _count_second(self._answers_at, self.since_first_s())
        if entry is not None:
            entry.count(ending.what)
            entry.tokens += ending.tokens
            entry.lost += ending.lost
            entry.changed = self.sequence
            if ending.text is not None:
                entry.text = sys.intern(ending.text)  # many records share one text
        if self._file is not None:
            self._file.write(_line(entry, ending, self.since_first_s()))

    def __getitem__(self, name: str) -> RecordCalls:
        """Return a record's entry. Raises KeyError if it never called."""
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[RecordCalls]:
        """Yield all entries, in the order of their first calls."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        """Return how many records have called."""
        return len(self._entries)

    def totals(self) -> CallTotals:
        """Return the current counts."""
        named = {ANSWERED, REFUSED}
        return CallTotals(
            records=len(self._entries),
            calls=self.calls,
            answered=self._what[ANSWERED],
            refused=self._what[REFUSED],
            failed={what: count for what, count in sorted(self._what.items()) if what not in named},
            lost=self._lost,
            tokens=self._tokens,
            by_status=dict(sorted(self._status.items())),
            in_flight=self.in_flight,
            peak_in_flight=self._peak,
            calls_by_second=list(self._calls_at),
            answers_by_second=list(self._answers_at),
            first_call_at=None if self._first is None else self._first_at,
            last_call_at=None if self._first is None else self._last_at,
        )

    def as_json(self, since: int = 0) -> dict[str, Any]:
        """Return the totals, and the entries that changed after the sequence number `since`."""
        records = {entry.name: entry.as_json() for entry in self if entry.changed > since}
        return {"sequence": self.sequence, "totals": self.totals().as_json(), "records": records}

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_call_log(path: str | Path) -> CallLog:
    """Read a log file, even that of a killed server. It does not contain the counts by second."""
    books = CallLog()
    with Path(path).open("rb") as lines:
        for line in lines:
            try:
                entry_json = loads(line)
            except JSONDecodeError:
                continue  # cut off by a kill, so its answer was never sent
            books.calls += 1
            entry = None if entry_json["record"] is None else books.entry(entry_json["record"])
            books.close_call(entry, CallEnding(**{name: entry_json[name] for name in CallEnding.__slots__}))
    return books


def _line(entry: RecordCalls | None, ending: CallEnding, at_s: float) -> bytes:
    facts = {name: getattr(ending, name) for name in CallEnding.__slots__}
    return dumps({"at_s": round(at_s, 3), "record": entry.name if entry else None, **facts}) + b"\n"


def _count_second(counts: list[int], since_s: float) -> None:
    second = int(since_s)
    if second >= len(counts):
        counts.extend([0] * (second + 1 - len(counts)))
    counts[second] += 1
