"""Shows the progress of a run: one tqdm line in a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TextIO
from weakref import WeakSet

from tqdm import tqdm

from pipeline.terminal import (
    BackgroundWriter,
    colorize,
    columns_of,
    cut,
    format_for_stream,
    is_notebook,
    is_terminal,
    printable,
    supports_color,
    width,
)
from pipeline.units import DAY_S, UNPRICED, dollars, duration

REDRAW_S = 0.5
LOG_EVERY_S = 30.0
#: Thirty years. A larger number is meaningless.
NEVER_S = 1e9
#: Columns and rows of a terminal that does not report its size, as in some containers: tqdm would take the zeros for a
#: size and draw nothing.
BLIND_SIZE = (100, 24)
#: Columns of the bar. A bar shorter than the shortest one is useless.
LONGEST_BAR, SHORTEST_BAR = 20, 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The facts on the line. `total` is None while unknown; `total_known` is false while it is an estimate.

    `rate_per_minute` is the recent rate of records; `limit_per_minute` is what the limits allow; `calls_per_record` is
    how many calls a record has taken so far, including retries. `trouble` is a sentence if nothing moves, else empty.
    `requests_left_today` and `requests_per_day` are None without a daily limit. `cost_usd` is None if it is unknown:
    without a price or, with `usage_unknown`, because no answer reports its tokens. `gold` is the accuracy on gold
    records as text, empty without gold.
    """

    done: int
    total: int | None
    total_known: bool
    rate_per_minute: float
    limit_per_minute: float | None
    calls_per_record: float
    cost_usd: float | None
    in_flight: int
    retries: int
    unlabelled: int
    trouble: str = ""
    requests_left_today: int | None = None
    requests_per_day: int | None = None
    simulated: bool = False
    usage_unknown: bool = False
    gold: str = ""


def eta_s(snapshot: Snapshot) -> float | None:
    """Return the seconds until the end, by the recent rate but no faster than the limits; None if unknown."""
    if snapshot.total is None or snapshot.trouble:
        return None
    left = max(0, snapshot.total - snapshot.done)
    by_rate = left / snapshot.rate_per_minute * 60 if snapshot.rate_per_minute > 0 else None
    by_limit = left * snapshot.calls_per_record / snapshot.limit_per_minute * 60 if snapshot.limit_per_minute else None
    known = [seconds for seconds in (by_rate, by_limit) if seconds is not None]
    if not known:
        return None
    wait_s = max(known) + _day_limit_wait_s(snapshot, left * snapshot.calls_per_record)
    return wait_s if wait_s < NEVER_S else None


def _day_limit_wait_s(snapshot: Snapshot, calls: float) -> float:
    """Return the seconds of the days that must pass before `calls` more are allowed."""
    if snapshot.requests_left_today is None or calls <= snapshot.requests_left_today:
        return 0.0
    beyond = calls - snapshot.requests_left_today
    return DAY_S * math.ceil(beyond / (snapshot.requests_per_day or beyond))


def _parts(snapshot: Snapshot) -> list[str]:
    """Return the texts after the bar: the rate or the trouble, the time, the cost, and the counts; some are empty."""
    rate = f"{snapshot.rate_per_minute:,.0f}/min"
    if snapshot.limit_per_minute is not None:
        rate += f" of {snapshot.limit_per_minute:,.0f}"
    left_s = eta_s(snapshot)
    return [
        printable(snapshot.trouble) or rate,
        "" if left_s is None else f"ETA {'about ' if not snapshot.total_known else ''}{duration(left_s)}",
        _cost(snapshot),
        f"{snapshot.in_flight} in flight",
        retries_text(snapshot.retries) if snapshot.retries else "",
        f"{snapshot.unlabelled:,} without label" if snapshot.unlabelled else "",
        snapshot.gold,
    ]


def _cost(snapshot: Snapshot) -> str:
    if snapshot.cost_usd is None:
        return "cost unknown (answers without usage)" if snapshot.usage_unknown else UNPRICED
    return dollars(snapshot.cost_usd) + (" simulated" if snapshot.simulated else "")


#: On a line that is too narrow, these parts are left out in this order. The first part, rate or trouble, stays.
_GO_FIRST = (3, 4, 2, 5, 1, 6)
_BETWEEN = " · "


def tail(snapshot: Snapshot) -> str:
    """Return everything after the bar."""
    return _joined(_parts(snapshot))


def _joined(parts: list[str]) -> str:
    return _BETWEEN.join(part for part in parts if part)


def retries_text(retries: int) -> str:
    """`1 retry`, `1,234 retries`."""
    return f"{retries:,} {'retry' if retries == 1 else 'retries'}"


def fit_line(snapshot: Snapshot, columns: int | None) -> tuple[str, int, bool]:
    """Return the text after the bar, the bar's length, and whether the percentage fits. None: any width.

    On a narrow line the bar shrinks and disappears first, then the parts of the lowest rank, then the percentage. If
    the text still does not fit, its last words are cut.
    """
    parts = _parts(snapshot)
    if columns is None:
        return _joined(parts), LONGEST_BAR, True
    room = columns - width(count(snapshot)) - len(" ")
    for gone in (None, *_GO_FIRST):
        if gone is not None:
            parts[gone] = ""
        free = room - len("100% ") - width(_joined(parts))
        if free >= 0:
            bar = min(LONGEST_BAR, free - len(" ")) if gone is None else 0
            return _joined(parts), bar if bar >= SHORTEST_BAR else 0, True
    return cut(_joined(parts), room), 0, False


def count_text(done: int, total: int | None, *, known: bool) -> str:
    """`1,200/50,000`, with a `~` before a total that is an estimate."""
    if total is None:
        return f"{done:,}"
    return f"{done:,}/{'' if known else '~'}{total:,}"


def count(snapshot: Snapshot) -> str:
    """Return how many records are done, of how many."""
    return count_text(snapshot.done, snapshot.total, known=snapshot.total_known)


class _NoLock:
    """A lock that does nothing."""

    def acquire(self, *_: object) -> bool:
        return True

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class _Line(tqdm):  # type: ignore[type-arg]
    """A tqdm line whose texts come from a snapshot.

    One thread draws it, and a terminal may block that thread for hours. So it shares no lock and no list with other
    lines of the program, and nobody else closes it.
    """

    _lock = _NoLock()
    _instances: ClassVar[WeakSet[_Line]] = WeakSet()
    monitor_interval = 0

    def __del__(self) -> None: ...

    snapshot: Snapshot | None = None
    title = ""

    @property
    def format_dict(self) -> dict[str, Any]:
        meters = super().format_dict
        if self.snapshot is None:
            return {**meters, "bar_format": " "}
        # The last column stays free: some terminals move to the next line when it is written to.
        columns = meters["ncols"] and meters["ncols"] - 1 - len(self.title)
        text, bar, percentage = fit_line(self.snapshot, columns)
        parts = ("{counted}", f"{{bar:{bar}}}" if bar else "", "{percentage:3.0f}%" if percentage else "", "{told}")
        return {
            **meters,
            "bar_format": " ".join(filter(None, parts)),
            "counted": f"{self.title}{count(self.snapshot)}",
            "told": colorize(text) if supports_color(self.fp) else text,
        }


def _size(stream: TextIO) -> dict[str, Any]:
    """Return the size of the line for tqdm; None if the terminal reports it."""
    columns, rows = BLIND_SIZE if columns_of(stream) is None else (None, None)
    return {"ncols": columns, "nrows": rows}


class Progress:
    """Shows snapshots until it is closed, as a redrawn line in a terminal or a notebook, elsewhere a line every 30 s.

    `title` precedes the counts. Nothing here raises, and nothing waits for the terminal: see `BackgroundWriter`.
    """

    def __init__(
        self, look: Callable[[], Snapshot], *, stream: TextIO | None = None, quiet: bool = False, title: str = ""
    ) -> None:
        self._look = look
        self._title = f"{printable(title)} " if title else ""
        stream = stream or sys.stderr
        self._scribe = None if quiet or stream is None else BackgroundWriter(stream)
        self._stream = stream if self._scribe is None else self._scribe.stream
        self._redraws = is_terminal(stream) or is_notebook(stream)
        # Mutable state, besides the background writer: the terminal's line, which only the writer's thread touches.
        self._line: _Line | None = None

    async def run(self) -> None:
        """Redraw until canceled."""
        while True:
            await asyncio.sleep(REDRAW_S if self._redraws else LOG_EVERY_S)
            self.show()

    def show(self) -> None:
        """Draw the current state, unless the terminal is behind."""
        if self._scribe is None or self._scribe.is_behind:
            return
        try:
            self._scribe.submit(partial(self._draw, self._look()))
        except Exception as error:
            self._scribe.log_failure(error)

    def echo(self, text: str) -> None:
        """Print a line above the progress line."""
        if self._scribe is not None:
            self._scribe.submit(lambda: self._write(format_for_stream(printable(text), self._stream) + "\n"))

    def close(self) -> None:
        """Leave the last state on the screen; may be called twice."""
        if self._scribe is None:
            return
        if self._redraws:
            self.show()
            self._scribe.submit(self._close_line)
        self._scribe.close()
        self._scribe = None

    # -- in the background writer's thread ---------------------------------------------------------------------------

    def _draw(self, snapshot: Snapshot) -> None:
        if not self._redraws:
            self._write(f"labelpipe: {self._title}{count(snapshot)} · {tail(snapshot)}\n")
            return
        if self._line is None:
            self._line = _open_line(self._stream)
        self._line.title, self._line.snapshot = self._title, snapshot
        self._line.total, self._line.n = max(snapshot.total or 0, snapshot.done, 1), snapshot.done
        self._line.refresh()

    def _write(self, text: str) -> None:
        if self._line is not None:
            self._line.clear()
        self._stream.write(text)
        self._stream.flush()
        if self._line is not None:
            self._line.refresh()

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()


def _open_line(stream: TextIO) -> _Line:
    size = _size(stream)
    return _Line(total=1, file=stream, dynamic_ncols=size["ncols"] is None, leave=True, mininterval=0, **size)


@contextmanager
def show_count(
    what: str, *, stream: TextIO | None = None, quiet: bool = False, every_s: float = REDRAW_S
) -> Iterator[Callable[[int], object]]:
    """Yield a function that adds to a count. A terminal shows the count if it takes long."""
    stream = stream or sys.stderr
    with tqdm(
        desc=what,
        file=stream,
        disable=quiet or not is_terminal(stream),
        delay=every_s,
        mininterval=every_s,
        miniters=1,
        leave=False,
        bar_format="{desc}: {n:,}",
        **_size(stream),
    ) as line:
        yield line.update
