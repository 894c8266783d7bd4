"""A `labelpipe` command whose clock somebody else moves: `python moved.py CLOCK run job.toml`.

CLOCK is a file with one number (a double, as the machine writes it): how many seconds later it is than the real clocks
say. The clocks go on by themselves, and jump when the number changes.
"""

from __future__ import annotations

import asyncio
import mmap
import selectors
import struct
import sys
import time
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


def main() -> None:
    """Give the command under the moved clock."""
    clock = Clock(Path(sys.argv[1]))
    wall, steady = time.time, time.monotonic
    time.time = lambda: wall() + clock.ahead_s
    time.monotonic = lambda: steady() + clock.ahead_s  # the event loop's clock too
    asyncio.events.new_event_loop = lambda: asyncio.SelectorEventLoop(_LookingSelector())
    sys.argv[1:2] = []
    from pipeline.cli import main as command  # only now: parts take hold of the clock as they are imported

    command()


if __name__ == "__main__":
    main()
