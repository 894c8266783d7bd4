"""Reads local files from one folder and nowhere else, whatever a record contains."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MediaError
from pipeline.media.sources import display_path

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
#: Prevents waiting when a pipe without a writer is opened. It is refused once it is open.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)
_BY_FOLDER = os.open in os.supports_dir_fd


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that may be read: its real path, and its size when it was found."""

    path: Path
    size_bytes: int
    name: str


class MediaFolder:
    """The folder that must contain the files of records. Works in threads; has no state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = Path(os.path.realpath(folder))

    def find(self, source: str, most_bytes: int) -> LocalFile:
        """Find the file that a record names, relative to the root, then to the current directory.

        The real path, after `..` and symlinks, must be below the root. Raises MediaError.
        """
        path = self._resolve(source)
        if not path.is_relative_to(self._real):
            raise MediaError(
                f"{display_path(source)} is outside {self._folder}, where media must be: set task.media.root"
            )
        try:
            status = path.lstat()
        except OSError as error:
            raise _unreadable(source, error) from None
        _require_regular_file(status, source)
        if status.st_size > most_bytes:
            limit = f"{status.st_size:,} bytes; task.media.max_bytes allows {most_bytes:,}"
            raise MediaError(f"{display_path(source)} is too large: {limit}")
        return LocalFile(path, status.st_size, source)

    def read(self, file: LocalFile, most_bytes: int) -> bytes:
        """Return the file's bytes. Raises MediaError, also if somebody has replaced it with something else."""
        try:
            with os.fdopen(self._open(file.path), "rb") as stream:
                _require_regular_file(os.fstat(stream.fileno()), file.name)
                data = stream.read(most_bytes + 1)
        except OSError as error:
            raise _unreadable(file.name, error) from None
        if len(data) > most_bytes:
            raise MediaError(
                f"{display_path(file.name)} is larger than the {most_bytes:,} bytes that task.media.max_bytes allows"
            )
        return data

    def _resolve(self, source: str) -> Path:
        errors: list[OSError] = []
        for base in (self._real, Path.cwd()):
            try:
                return Path(os.path.realpath(base / source, strict=True))
            except OSError as error:
                errors.append(error)
            except ValueError:  # a NUL in the name
                raise MediaError(f"{display_path(source)} is not a file name") from None
        raise _unreadable(source, errors[0])

    def _open(self, path: Path) -> int:
        """Open folder by folder, without following links. The path has none, unless somebody just created one."""
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


def _require_regular_file(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a device or the like"
        raise MediaError(f"{display_path(name)} is {kind}: expected a file")


def _unreadable(name: str, error: OSError) -> MediaError:
    return MediaError(f"{display_path(name)} cannot be read: {error.strerror or error}")
