"""The config file, watched while the run goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline import codec

#: A file that was written to a moment ago may be half of what it will be, and half a config may be a valid one.
SETTLE_S = 0.25


class _Stamp(NamedTuple):
    modified_ns: int
    size: int
    inode: int


class ConfigWatch:
    """Says when the config file is another one. A look costs one `stat`."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        # All state that changes: the file that was taken, the file at the last look, and the last bad content.
        self._in_use: _Stamp | None = None
        self._last: _Stamp | None = None
        self._bad: int | None = None

    def changed(self) -> bool:
        """Whether to read the file again: once a change, when its writer has come to rest.

        The first look says True: the file may have been edited since the run began to read it. A file that is missing
        or empty is being replaced, and is no change.
        """
        stamp, before = self._stamp(), self._last
        self._last = stamp
        if stamp is None or stamp == self._in_use:
            return False
        # By its age; or, where the file's clock is not ours, by two looks that see the same.
        if stamp != before and self._wall() - stamp.modified_ns / 1e9 < SETTLE_S:
            return False
        self._in_use = stamp
        return True

    def is_news(self) -> bool:
        """To be asked when the file cannot be used: whether that was not told of this content yet."""
        try:
            content = codec.digest64(self.path.read_bytes())
        except OSError:
            return False  # it is being replaced: the next look sees the new one
        news = content != self._bad
        self._bad = content
        return news

    def is_good(self) -> None:
        """To be told when the file could be used: the same mistake, made again later, is news."""
        self._bad = None

    def _stamp(self) -> _Stamp | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return _Stamp(stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat.st_size else None
