"""The clock of a `labelpipe` command, moved by somebody else.

It is a file with one number (a double, as the machine writes it): how many seconds later it is than the real clocks
say. The clocks go on by themselves, and jump when the number changes.
"""

from __future__ import annotations

import asyncio
import mmap
import selectors
import struct
import time
from collections.abc import Callable
from pathlib import Path


class Clock:
    """The number in the file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack("d", 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def ahead_s(self) -> float:
        """How many seconds later it is."""
        found: float = struct.unpack("d", self._map[:8])[0]
        return found

    def move(self, seconds: float) -> None:
        """Let so much time pass."""
        self._map[:8] = struct.pack("d", self.ahead_s + seconds)


class _LookingSelector(selectors.DefaultSelector):
    """Never waits for long: the clock may have been moved meanwhile."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0.02 if timeout is None else min(timeout, 0.02))


def move_clocks() -> Callable[[Path], None]:
    """Let this process go by a moved clock; called before anything takes hold of one. Gives what names the file."""
    clocks: list[Clock] = []
    wall, steady = time.time, time.monotonic
    time.time = lambda: wall() + (clocks[0].ahead_s if clocks else 0.0)
    time.monotonic = lambda: steady() + (clocks[0].ahead_s if clocks else 0.0)  # the event loop's clock too
    asyncio.events.new_event_loop = lambda: asyncio.SelectorEventLoop(_LookingSelector())
    return lambda path: clocks.append(Clock(path))
