"""Expands globs like the module `glob`, except for links: `**` visits each real folder once.

With `glob`, a link that leads upward returns the same files 40 times, and with two of them the walk never ends.
"""

import fnmatch
import glob
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

_DEEP = "**"
#: The number of links on the way to a name, and the name: names without links sort first.
_Place = tuple[int, str]


def matching(pattern: str, base: str | Path = "") -> Iterator[str]:
    """Yield the names of the files and folders that match a pattern, in no order, and some of them twice.

    `*` and `**` skip names that begin with a dot. If a folder has several names, `**` visits it under the one with the
    fewest links in it.
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
    # `**/**` equals `**`, and would start a walk from each folder of a walk.
    return [part for part, before in zip(parts, ("", *parts), strict=False) if (part, before) != (_DEEP, _DEEP)]


def _expand_part(places: Sequence[_Place], part: str, base: str, *, folders: bool) -> Iterator[_Place]:
    """Expand one part of a pattern in each of these folders; only to folders if more parts follow."""
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
    """Yield the folders and everything below them: first without any link, then through links to new folders."""
    waiting = sorted(places)
    visited: set[tuple[int, int]] = set()
    while waiting:
        links, name = heapq.heappop(waiting)
        inode = _inode(base, name)
        # Only targets of links are ever skipped, so that no odd file system can make a folder vanish.
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
    """Return an identity that all names of a folder share; None if there is no such folder."""
    try:
        status = os.stat(os.path.join(base, name) or os.curdir)  # noqa: PTH116, PTH118
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _entries(base: str, name: str, *, hidden: bool) -> list[os.DirEntry[str]]:
    """Return the entries of a folder; none if it may not be read, as `glob` does."""
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
