"""Watches the config file during the run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline import codec

#: Seconds without a write before the file is read: it may be only half written, and half a config may be valid.
SETTLE_S = 0.25


class _Stamp(NamedTuple):
    modified_ns: int
    size: int
    inode: int


class ConfigWatch:
    """Detects changes of the config file. A check costs one `stat`."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        # Mutable state: the file in use, the file at the last check, and the last bad content.
        self._in_use: _Stamp | None = None
        self._last: _Stamp | None = None
        self._bad: int | None = None

    def changed(self) -> bool:
        """Whether to read the file again: true once per change, after its writer has finished.

        The first check returns True, because the file may have been edited since the run read it. A missing
        or empty file is being replaced, and has not changed.
        """
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp is None or stamp == self._in_use:
            return False
        # By its age or, if the file's clock is not ours, by two equal checks.
        if stamp != before and self._wall() - stamp.modified_ns / 1e9 < SETTLE_S:
            return False
        self._in_use = stamp
        return True

    def is_news(self) -> bool:
        """Whether an unusable file has content that was not reported yet."""
        try:
            content = codec.digest64(self.path.read_bytes())
        except OSError:
            return False  # it is being replaced, and the next check sees the new file
        news = content != self._bad
        self._bad = content
        return news

    def is_good(self) -> None:
        """Record that the file was usable, so that the same mistake is reported if it is made again."""
        self._bad = None

    def _stamp(self) -> _Stamp | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return _Stamp(stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat.st_size else None
