"""What is seen while a run goes on: one tqdm line in a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from tqdm import tqdm

REDRAW_S = 0.5
LOG_EVERY_S = 30.0
#: Thirty years: a number that is larger says nothing.
NEVER_S = 1e9
#: Columns and rows of a terminal that does not say how many it has (a container's may be such): tqdm would take its
#: zeros for a size and draw nothing.
BLIND_SIZE = (100, 24)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the line shows. `total` is None while unknown; `total_known` is false while it is an estimate.

    `rate_per_minute` is records a minute of late; `limit_per_minute` what the limits allow; `calls_per_record` how many
    calls a record has taken so far, retries included. `trouble` is a sentence when nothing moves, else empty.
    `requests_left_today` and `requests_per_day` are None without a limit a day.
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


def eta_s(seen: Snapshot) -> float | None:
    """Seconds until the end: by the late rate, but no faster than the limits allow; None while it cannot be said."""
    if seen.total is None or seen.trouble:
        return None
    left = max(0, seen.total - seen.done)
    by_rate = left / seen.rate_per_minute * 60 if seen.rate_per_minute > 0 else None
    by_limit = left * seen.calls_per_record / seen.limit_per_minute * 60 if seen.limit_per_minute else None
    known = [seconds for seconds in (by_rate, by_limit) if seconds is not None]
    if not known:
        return None
    wait_s = max(known) + _nights_s(seen, left * seen.calls_per_record)
    return wait_s if wait_s < NEVER_S else None


def _nights_s(seen: Snapshot, calls: float) -> float:
    """The days that have to pass before `calls` more are allowed."""
    if seen.requests_left_today is None or calls <= seen.requests_left_today:
        return 0.0
    beyond = calls - seen.requests_left_today
    return 86_400.0 * math.ceil(beyond / (seen.requests_per_day or beyond))


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def dollars(cost_usd: float | None) -> str:
    """`$12.34`, with more digits for less money; `price unknown` where it is."""
    if cost_usd is None:
        return "price unknown"
    return f"${cost_usd:,.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"


def tail(seen: Snapshot) -> str:
    """Everything on the line behind the bar."""
    rate = f"{seen.rate_per_minute:,.0f}/min"
    if seen.limit_per_minute is not None:
        rate += f" of {seen.limit_per_minute:,.0f}"
    left_s = eta_s(seen)
    parts = [
        seen.trouble or rate,
        "" if left_s is None else f"ETA {'about ' if not seen.total_known else ''}{duration(left_s)}",
        dollars(seen.cost_usd) + (" simulated" if seen.simulated else ""),
        f"{seen.in_flight} in flight",
        f"{seen.retries:,} retries" if seen.retries else "",
        f"{seen.unlabelled:,} without label" if seen.unlabelled else "",
    ]
    return " · ".join(part for part in parts if part)


def count_text(done: int, total: int | None, *, known: bool) -> str:
    """`1,200/50,000`, with a `~` before a total that is an estimate."""
    if total is None:
        return f"{done:,}"
    return f"{done:,}/{'' if known else '~'}{total:,}"


def count(seen: Snapshot) -> str:
    """How many are done, of how many."""
    return count_text(seen.done, seen.total, known=seen.total_known)


class _Line(tqdm):  # type: ignore[type-arg]
    """A tqdm line whose texts come from a snapshot."""

    counted = ""
    told = ""

    @property
    def format_dict(self) -> dict[str, Any]:
        return {**super().format_dict, "counted": self.counted, "told": self.told}


def _knows_size(stream: TextIO) -> bool:
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return False


class Progress:
    """Shows snapshots until it is closed. In a terminal a line that redraws; elsewhere a line every 30 s."""

    def __init__(self, look: Callable[[], Snapshot], *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._look = look
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._line = self._open_line() if not quiet and self._stream.isatty() else None

    def _open_line(self) -> _Line:
        knows_size = _knows_size(self._stream)
        return _Line(
            total=1,
            file=self._stream,
            dynamic_ncols=knows_size,
            ncols=None if knows_size else BLIND_SIZE[0],
            nrows=None if knows_size else BLIND_SIZE[1],
            leave=True,
            mininterval=0,
            bar_format="{counted} {bar:20} {percentage:3.0f}% {told}",
        )

    async def run(self) -> None:
        """Redraw until cancelled."""
        while True:
            await asyncio.sleep(REDRAW_S if self._line is not None else LOG_EVERY_S)
            self.show()

    def show(self) -> None:
        """Draw what there is to see now."""
        if self._quiet:
            return
        seen = self._look()
        if self._line is None:
            self._stream.write(f"labelpipe: {count(seen)} · {tail(seen)}\n")
            self._stream.flush()
            return
        self._line.counted, self._line.told = count(seen), tail(seen)
        self._line.total, self._line.n = max(seen.total or 0, seen.done, 1), seen.done
        self._line.refresh()

    def say(self, text: str) -> None:
        """A line of its own, above the progress line."""
        if self._quiet:
            return
        if self._line is not None:
            self._line.clear()
        self._stream.write(text + "\n")
        self._stream.flush()
        if self._line is not None:
            self._line.refresh()

    def close(self) -> None:
        """The last state stays on the screen; may be called twice."""
        if self._line is not None:
            self.show()
            self._line.close()
            self._line = None
            self._quiet = True
