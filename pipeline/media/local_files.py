"""Local files, below one folder and nowhere else, whatever a record says."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MediaError
from pipeline.media.sources import named

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: so that opening a pipe that nobody writes into does not wait; it is refused once it is open
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BY_FOLDER = os.open in os.supports_dir_fd


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be read: where it really is, and its size when it was looked at."""

    path: Path
    size_bytes: int
    name: str


class Root:
    """The folder below which a record may name files. Works in threads; holds no state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = Path(os.path.realpath(folder))

    def find(self, source: str, most_bytes: int) -> Found:
        """The file that a record names: looked for below the root, then from the current directory.

        Wherever the name leads, through `..` and symlinks, has to be below the root. Raises MediaError.
        """
        path = self._resolved(source)
        if not path.is_relative_to(self._real):
            raise MediaError(f"{named(source)} is outside {self._folder}, where media must be: set task.media.root")
        try:
            found = path.lstat()
        except OSError as error:
            raise _unreadable(source, error) from None
        _refuse_odd(found, source)
        if found.st_size > most_bytes:
            told = f"{found.st_size:,} bytes; task.media.max_bytes allows {most_bytes:,}"
            raise MediaError(f"{named(source)} is too large: {told}")
        return Found(path, found.st_size, source)

    def read(self, found: Found, most_bytes: int) -> bytes:
        """The file's bytes. Raises MediaError, also where somebody put another thing in its place meanwhile."""
        try:
            handle = self._open(found.path)
        except OSError as error:
            raise _unreadable(found.name, error) from None
        with os.fdopen(handle, "rb") as file:
            try:
                _refuse_odd(os.fstat(file.fileno()), found.name)
                data = file.read(most_bytes + 1)
            except OSError as error:
                raise _unreadable(found.name, error) from None
        if len(data) > most_bytes:
            raise MediaError(
                f"{named(found.name)} is larger than the {most_bytes:,} bytes that task.media.max_bytes allows"
            )
        return data

    def _resolved(self, source: str) -> Path:
        first: OSError | None = None
        for base in (self._real, Path.cwd()):
            try:
                return Path(os.path.realpath(base / source, strict=True))
            except (ValueError, OSError) as error:
                if not isinstance(error, OSError):  # a NUL in the name
                    raise MediaError(f"{named(source)} is not a file name") from None
                first = first or error
        assert first is not None
        raise _unreadable(source, first)

    def _open(self, path: Path) -> int:
        """Open folder by folder, following no link: the path has none, unless somebody made one just now."""
        if not _BY_FOLDER:
            return os.open(path, _FLAGS | _NO_LINK | _NO_WAIT)
        at = os.open(self._real, _FLAGS | os.O_DIRECTORY)
        *folders, name = path.relative_to(self._real).parts
        try:
            for folder in folders:
                inner = os.open(folder, _FLAGS | os.O_DIRECTORY | _NO_LINK, dir_fd=at)
                os.close(at)
                at = inner
            return os.open(name, _FLAGS | _NO_LINK | _NO_WAIT, dir_fd=at)
        finally:
            os.close(at)


def _refuse_odd(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a device or the like"
        raise MediaError(f"{named(name)} is {kind}: expected a file")


def _unreadable(name: str, error: OSError) -> MediaError:
    return MediaError(f"{named(name)} cannot be read: {error.strerror or error}")
