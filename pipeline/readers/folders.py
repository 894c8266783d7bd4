"""What the folders of a file say of it: that a run has written it, or columns in their names (`lang=de/`)."""

import glob
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from urllib.parse import unquote

from pipeline.errors import InputError
from pipeline.records import JSON

#: what a run's folder holds, whatever else is in it
_OF_A_RUN = ("manifest.json", "ledger.db")
_APART = "set output.dir to another folder"
#: how Hive writes a partition that has no value
_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def exclude_run_files(
    names: Sequence[str], pattern: str, base: Path, run_dir: Path | None
) -> tuple[list[str], list[str]]:
    """The names without those of files that runs have written, and which of these were another run's.

    Files in the run's own folder (`run_dir`) are never input: a run would read what it writes. Those of other runs are
    taken where the pattern names them (`runs/*/labels.csv`), not where it only covers them. Raises InputError where
    nothing remains.
    """
    kind_of = cache(lambda folder: _owner(folder, None if run_dir is None else os.path.realpath(run_dir)))
    kinds = [kind_of(_folder(name, base)) for name in names]
    if names and not glob.has_magic(pattern):
        if "own" in kinds:
            raise InputError(f"input.path: {pattern!r} is in output.dir, this run's own folder; {_APART}")
        return list(names), []
    names_files = not glob.has_magic(PurePath(pattern).name)
    inputs = [name for name, kind in zip(names, kinds, strict=True) if not kind or (kind == "run" and names_files)]
    excluded = [name for name, kind in zip(names, kinds, strict=True) if kind == "run" and not names_files]
    if names and not inputs and not excluded:
        raise InputError(f"input.path: {pattern!r} matches only files in output.dir, this run's own folder; {_APART}")
    if names and not inputs:
        raise InputError(
            f"input.path: {pattern!r} matches nothing but what other runs have written ({excluded[0]}); name the file "
            "to read another run's, as in 'runs/*/labels.csv'"
        )
    return inputs, excluded


def _folder(name: str, base: Path) -> str:
    """Where the file lies, were it not for a link; there may be 100,000, so no Path."""
    path = os.path.join(base, name)  # noqa: PTH118
    return os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114, PTH120


def _owner(folder: str, run_dir: str | None) -> str:
    """Whose files are in the folder: this run's `own`, those of another `run`, or nobody's."""
    real = os.path.realpath(folder)
    if run_dir is not None and (real == run_dir or real.startswith(run_dir + os.sep)):
        return "own"
    return "run" if all(os.path.isfile(os.path.join(real, name)) for name in _OF_A_RUN) else ""  # noqa: PTH113, PTH118


def partition_of(name: str) -> Mapping[str, JSON]:
    """The columns that the names of a file's folders give, as Hive, Spark and pyarrow write them; values are texts."""
    if "=" not in name:
        return {}
    pairs = (part.partition("=") for part in name.split("/")[:-1])
    return {
        unquote(column): None if value == _NOTHING else unquote(value)
        for column, sign, value in pairs
        if sign and column and "=" not in value
    }
