"""What a glob stands for, as the module `glob` has it, but for links: `**` goes into each real folder once.

With `glob` a link that leads upwards gives the same files 40 times, and with two of them the walk never ends.
"""

import fnmatch
import glob
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

_DEEP = "**"
#: how many links are on the way to a name, and the name: the plainest names sort first
_Place = tuple[int, str]


def matching(pattern: str, base: str | Path = "") -> Iterator[str]:
    """The names of the files and folders that a pattern stands for, as the pattern is, in no order; some come twice.

    `*` and `**` pass over names that begin with a dot. A folder that is there under several names is walked by `**`
    under the one with the fewest links in it: its own, where that is among them.
    """
    path = PurePath(pattern)
    *upper, last = _parts(path) or [""]
    places: list[_Place] = [(0, path.anchor)]
    for part in upper:
        places = sorted(set(_expand_part(places, part, str(base), folders=True)))
    ends = (os.sep, os.altsep or os.sep)
    yield from (name for _, name in _expand_part(places, last, str(base), folders=pattern.endswith(ends)) if name)


def _parts(path: PurePath) -> list[str]:
    parts = path.parts[1:] if path.anchor else path.parts
    # `**/**` is `**`, and would be a walk from each folder of a walk.
    return [part for part, before in zip(parts, ("", *parts), strict=False) if (part, before) != (_DEEP, _DEEP)]


def _expand_part(places: Sequence[_Place], part: str, base: str, *, folders: bool) -> Iterator[_Place]:
    """What one part of a pattern stands for in each of these folders; only folders where more follows."""
    if part == _DEEP:
        yield from _walk(places, base, folders=folders)
    elif glob.has_magic(part):
        yield from _match_entries(places, part, base, folders=folders)
    else:
        for links, name in places:
            inner = os.path.join(name, part)  # noqa: PTH118 - there may be 100,000: no Path for each
            at = os.path.join(base, inner)  # noqa: PTH118
            if os.path.isdir(at) if folders else os.path.lexists(at):  # noqa: PTH112
                yield links + os.path.islink(at), inner  # noqa: PTH114


def _match_entries(places: Iterable[_Place], part: str, base: str, *, folders: bool) -> Iterator[_Place]:
    fits = re.compile(fnmatch.translate(os.path.normcase(part))).match
    hidden = part.startswith(".")
    for links, name in places:
        for entry in _entries(base, name, hidden=hidden):
            if fits(os.path.normcase(entry.name)) and (not folders or _is_folder(entry)):
                yield links + entry.is_symlink(), os.path.join(name, entry.name)  # noqa: PTH118


def _walk(places: Iterable[_Place], base: str, *, folders: bool) -> Iterator[_Place]:
    """The folders themselves and all that is below them: first without any link, then by links to what is new."""
    waiting = sorted(places)
    visited: set[tuple[int, int]] = set()
    while waiting:
        links, name = heapq.heappop(waiting)
        inode = _inode(base, name)
        # Only what a link leads to is ever passed over: no odd file system can make a folder vanish.
        if inode is None or (links and inode in visited):
            continue
        visited.add(inode)
        yield links, name
        for entry in _entries(base, name, hidden=False):
            inner = links + entry.is_symlink(), os.path.join(name, entry.name)  # noqa: PTH118
            if _is_folder(entry):
                heapq.heappush(waiting, inner)
            elif not folders:
                yield inner


def _inode(base: str, name: str) -> tuple[int, int] | None:
    """The same for every name of a folder; None where there is none."""
    try:
        status = os.stat(os.path.join(base, name) or os.curdir)  # noqa: PTH116, PTH118
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _entries(base: str, name: str, *, hidden: bool) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it may not be read, of which `glob` says nothing either."""
    try:
        with os.scandir(os.path.join(base, name) or os.curdir) as entries:  # noqa: PTH118
            return [entry for entry in entries if hidden or not entry.name.startswith(".")]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
