"""Resolves the user's input to a list of sources: paths, globs, folders, addresses, and stdin."""

import glob
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath
from urllib.parse import unquote

from pipeline import globs
from pipeline.errors import InputError, MissingInputError
from pipeline.readers.dataset import dataset_source, is_dataset
from pipeline.readers.dialect import AUTO_DIALECT, LOOK_BYTES, TextDialect
from pipeline.readers.files import files_source, reject_overlap
from pipeline.readers.remote import is_url, remote_sources
from pipeline.readers.source import (
    FILE_FORMATS,
    FORMAT_NAMES,
    Source,
    compression_suffix,
    detect_format,
    missing_input_error,
    natural_key,
)
from pipeline.readers.sql import DIALECTS, Query, sql_source
from pipeline.records import JSON

STDIN = "-"
#: Files that Windows leaves in folders. No glob matches them (nor names that begin with a dot).
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
#: The names that a shell gives to `<(...)`, and ours for them.
_WITHOUT_NAME = re.compile(r"/dev/fd/\d+|/proc/(self|\d+)/fd/\d+|/dev/stdin")
PIPE = "pipe"
#: Files that every run folder contains.
_OF_A_RUN = ("manifest.json", "ledger.db")
_APART = "set output.dir to another folder"
#: Hive's name for a partition without a value.
_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def resolve_sources(
    path: str | Sequence[str],
    *,
    format: str = "auto",  # noqa: A002 - the config's word for it
    base: Path,
    query: Query | None = None,
    secret: bool = False,
    dialect: TextDialect = AUTO_DIALECT,
    run_dir: Path | None = None,
) -> list[Source]:
    """Return the sources that `path` names, relative to `base`, in reading order.

    This is the order of the list. Within a glob (`**` matches all folders), it is by name, folder by folder, and
    numbers in names compare as numbers: part-2 before part-10. With a `query`, each path is the address of a database.
    If the address is a `secret`, no secret part of it is in a name. `dialect` describes how texts are written. Files in
    `run_dir`, the run's folder, are never input. Raises InputError, which says what to do.
    """
    if format not in FORMAT_NAMES:
        raise InputError(f"input.format: {format!r} is not known; it is one of {', '.join(FORMAT_NAMES)}")
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or not all(paths):
        raise InputError('input.path names no file; set it to a file, a list, a glob, or "-" for stdin')
    if query is not None:
        sources = [sql_source(each, query, base) for each in paths]
    elif format in FILE_FORMATS:
        sources = _folder_sources(paths, format, base, secret, run_dir)
    else:
        sources = [source for each in paths for source in _resolve_path(each, format, base, secret, run_dir)]
    sources = _number_pipes(sources)
    _reject_duplicates(sources)
    dialect = replace(dialect, format_is_explicit=format != "auto")
    return [replace(source, dialect=dialect) for source in sources]


def _number_pipes(sources: list[Source]) -> list[Source]:
    """Give unnamed pipes numbered names, because the shell's names for them differ each time."""
    pipes = [source for source in sources if source.name == PIPE]
    names = {id(source): f"{PIPE}-{number}" for number, source in enumerate(pipes[1:], 2)}
    return [replace(source, name=names[id(source)]) if id(source) in names else source for source in sources]


def _resolve_path(pattern: str, format_name: str, base: Path, secret: bool, run_dir: Path | None) -> Iterator[Source]:
    if pattern == STDIN:
        if format_name in ("parquet", "dataset"):
            raise InputError(f"input.path: {_TITLES[format_name]} cannot be read from stdin; name the file")
        yield Source("stdin", None, format_name, None, identity=STDIN)
        return
    if is_url(pattern):
        if pattern.partition("://")[0].partition("+")[0].lower() in DIALECTS:
            raise InputError("input.path is the address of a database: set input.query or input.table")
        for source in remote_sources(pattern, format_name, secret=secret):
            yield replace(source, partition=_partition_of(source.name.partition("?")[0]))
        return
    plain = _expand_home(pattern)
    names, excluded = _match(plain, base, os.path.exists if format_name == "dataset" else os.path.isfile, run_dir)
    notes = _note_excluded(excluded)
    for name in names:
        yield replace(_source(name, base / name, format_name), partition=_partition_of(name), notes=notes)
        notes = ()


def _note_excluded(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    files = "file that another run has" if len(names) == 1 else "files that other runs have"
    return (f"{len(names):,} {files} written are left out of the glob ({names[0]}{' ...' * (len(names) > 1)})",)


_TITLES = {"parquet": "Parquet", "dataset": "a dataset"}


def _expand_home(pattern: str) -> str:
    return str(Path(pattern).expanduser()) if pattern.startswith("~") else pattern


def _match(
    pattern: str, base: Path, is_wanted: Callable[[str], bool], run_dir: Path | None
) -> tuple[list[str], list[str]]:
    """Return the names that a pattern matches, in order, and those left out because another run wrote them.

    A file whose real name looks like a glob is matched as that file.
    """
    if not glob.has_magic(pattern) or (base / pattern).exists():
        return _exclude_run_files([PurePath(pattern).as_posix()], glob.escape(pattern), base, run_dir)
    matches = globs.matching(pattern, base)
    visible = (name for name in matches if not is_system_file(name))
    names = {_posix(name) for name in visible if is_wanted(os.path.join(base, name))}  # noqa: PTH118
    if not names:
        raise MissingInputError(f"input.path: no file matches {pattern!r} (looked for in {base.absolute()}).")
    return _exclude_run_files(sorted(names, key=natural_key), pattern, base, run_dir)


def is_system_file(name: str) -> bool:
    """Whether the operating system put the file there."""
    return os.path.basename(name).lower() in _LITTER  # noqa: PTH119 - there may be 100,000: no Path for each


def _posix(name: str) -> str:
    # There may be 100,000 names. Most are fine as they are, and a Path for each takes time.
    is_posix = os.sep == "/" and "/." not in name and "//" not in name and name[0] != "."
    return name if is_posix else PurePath(name).as_posix()


def _folder_sources(
    paths: Sequence[str], format_name: str, base: Path, secret: bool, run_dir: Path | None
) -> list[Source]:
    """Return each path as one source whose files are the records. A folder includes everything in it."""
    names_by_path: list[tuple[str, Sequence[str]]] = []
    for each in paths:
        if each == STDIN:
            raise InputError(f'input.path: format = "{format_name}" needs a folder or a glob, not stdin')
        if is_url(each):
            list(remote_sources(each, format_name, secret=secret))  # raises InputError
        plain = _expand_home(each)
        pattern = f"{glob.escape(plain.rstrip('/'))}/**/*" if (base / plain).is_dir() else plain
        names_by_path.append((plain, _match(pattern, base, os.path.isfile, run_dir)[0]))
    for plain, names in names_by_path:
        if list(names) == [PurePath(plain).as_posix()] and not (base / plain).is_file():
            raise missing_input_error(plain, base / plain, "no such file or folder")
    reject_overlap(names_by_path)
    return [files_source(PurePath(plain).as_posix(), names, base, format_name) for plain, names in names_by_path]


def _source(name: str, path: Path, format_name: str) -> Source:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise missing_input_error(name, path) from error
    except OSError as error:
        raise InputError(f"input.path: {name!r} cannot be read: {error.strerror} ({path})") from error
    if format_name == "dataset" or (format_name == "auto" and stat.S_ISDIR(status.st_mode) and is_dataset(path)):
        return dataset_source(name, path)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(
            f"input.path: {name!r} is a folder; name its files, as in '{name.rstrip('/')}/*.jsonl', "
            'or make each of them a record: input.format = "text_files", or "files" for pictures, sounds and documents'
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"input.path: {name!r} cannot be read: no permission ({path})")
    regular = stat.S_ISREG(status.st_mode)
    # A source that can be read only once is inspected when it is read.
    head = (lambda: _head(name, path)) if regular else None
    kind = detect_format(name, format_name, head) if regular or PurePath(name).suffix else format_name
    if kind == "parquet" and (not regular or compression_suffix(name)):
        raise InputError(f"input.path: {name!r}: Parquet is read from a plain file; unpack it first")
    # Bytes that are not UTF-8 must not get into keys, files, and messages.
    name = os.fsencode(name).decode("utf-8", "backslashreplace")
    name = PIPE if not regular and _WITHOUT_NAME.fullmatch(str(path)) else name
    return Source(name, path, kind, status.st_size if regular else None)


def _head(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LOOK_BYTES)
    except OSError as error:
        raise InputError(f"input.path: {name!r} cannot be read: {error.strerror} ({path})") from error


def _reject_duplicates(sources: list[Source]) -> None:
    known: dict[str, str] = {}
    for source in sources:
        real = str(source.path.resolve()) if source.path else source.identity
        for identity in {real or source.name, f"name {source.name}"}:
            if identity in known:
                raise InputError(
                    f"input.path: {source.name!r} is given twice (also as {known[identity]!r}); name it once"
                )
            known[identity] = source.name


def _exclude_run_files(
    names: Sequence[str], pattern: str, base: Path, run_dir: Path | None
) -> tuple[list[str], list[str]]:
    """Return the names without files that runs wrote, and the ones left out because another run wrote them.

    Files in the run's own folder (`run_dir`) are never input: a run would read what it writes. Those of other runs are
    included if the pattern names them (`runs/*/labels.csv`), but not if it only matches them. Raises InputError if
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
    """Return the folder of the file, with links resolved; without a Path, because there may be 100,000 files."""
    path = os.path.join(base, name)  # noqa: PTH118
    return os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114, PTH120


def _owner(folder: str, run_dir: str | None) -> str:
    """Return whose files are in the folder: `own` (this run), `run` (another run), or "" (no run)."""
    real = os.path.realpath(folder)
    if run_dir is not None and (real == run_dir or real.startswith(run_dir + os.sep)):
        return "own"
    return "run" if all(os.path.isfile(os.path.join(real, name)) for name in _OF_A_RUN) else ""  # noqa: PTH113, PTH118


def _partition_of(name: str) -> Mapping[str, JSON]:
    """Return the columns in the names of a file's folders, as Hive, Spark, and pyarrow write them. Values are texts."""
    if "=" not in name:
        return {}
    pairs = (part.partition("=") for part in name.split("/")[:-1])
    return {
        unquote(column): None if value == _NOTHING else unquote(value)
        for column, sign, value in pairs
        if sign and column and "=" not in value
    }
