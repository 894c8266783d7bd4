"""A file that is not there: where it was looked for, and what is like it."""

import os
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from pipeline.errors import MissingInputError

#: A folder of more is not looked through to its end.
NAMES_MAX = 10_000


def missing_input_error(name: str, path: Path, reason: str = "No such file or directory") -> MissingInputError:
    """The error for an input of this name, which was looked for at `path`."""
    return MissingInputError(
        f"input.path: {name!r} cannot be read: {reason} (looked for at {path.absolute()}).{_like(name, path)}"
    )


def _like(name: str, path: Path) -> str:
    gone = next((one for one in reversed(path.parents) if not one.is_dir()), None)
    looked_for = path if gone is None else gone
    close = get_close_matches(looked_for.name, _names(looked_for.parent), n=1)
    if gone is None:
        return f" Did you mean {name.removesuffix(path.name) + close[0]!r}?" if close else ""
    return f" There is no folder {gone}." + (f" Did you mean {str(gone.with_name(close[0]))!r}?" if close else "")


def _names(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, NAMES_MAX) if entry.is_dir() or entry.is_file()]
    return []
