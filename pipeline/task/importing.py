"""Imports "module:name" from the config's folder, the working directory, or the environment."""

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import TaskError, did_you_mean

MAX_NAMES = 15

# Mutable state: the top-level modules that were imported here, each with its file's path and modification time. Such a
# module is imported again if its file was edited (a notebook lives long), or if a module of the same name in another
# folder is requested. No other module is ever replaced.
_imported: dict[str, tuple[str, int]] = {}


def import_object(reference: str, base: Path, key: str) -> Any:
    """Import the object that "module:name" names. Raises a TaskError that lists the existing names.

    `key` is the config key that names it.
    """
    module_name, _, name = reference.partition(":")
    if not all(part.isidentifier() for text in (module_name, name) for part in text.split(".")):
        raise TaskError(f"{key} is {reference!r}: expected 'module:name', such as 'tools:set_label' for tools.py")
    folders = list(dict.fromkeys(str(folder.resolve()) for folder in (base, Path.cwd())))
    with _importable(folders):
        value: Any = _import(module_name, folders, key)
    for part in name.split("."):
        value = _attribute(value, part, f"{key} is {reference!r}")
    return value


@contextmanager
def _importable(folders: list[str]) -> Iterator[None]:
    # The folders come first during the import, so that their module is found. They come last afterwards: its later
    # imports still work, but no file next to a config hides a module of the program.
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before + [folder for folder in folders if folder not in before]


def _import(module_name: str, folders: list[str], key: str) -> ModuleType:
    importlib.invalidate_caches()
    top = module_name.partition(".")[0]
    stamp = _stamp(top, folders)
    if stamp is not None and top in sys.modules:
        _forget_stale(top, stamp, key)
    is_new = top not in sys.modules
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise TaskError(_describe_missing_module(module_name, folders, key)) from error
        raise TaskError(_describe_import_error(module_name, error, key)) from error
    except (Exception, SystemExit) as error:
        raise TaskError(_describe_import_error(module_name, error, key)) from error
    if stamp is not None and is_new:
        _imported[top] = stamp
    return module


def _stamp(top: str, folders: list[str]) -> tuple[str, int] | None:
    spec = PathFinder.find_spec(top, folders)
    if spec is None or spec.origin is None:
        return None
    return spec.origin, Path(spec.origin).stat().st_mtime_ns


def _forget_stale(top: str, stamp: tuple[str, int], key: str) -> None:
    if _imported.get(top) == stamp:
        return
    if top in _imported:
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]
        return
    in_use = getattr(sys.modules[top], "__file__", None)
    if in_use != stamp[0]:
        raise TaskError(
            f"{key} names the module {top!r} ({stamp[0]}), but another module of that name is in use "
            f"({in_use or 'built in'}): rename yours"
        )


def _attribute(owner: Any, name: str, where: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        names = [value for value in vars(owner) if not value.startswith("_")] if hasattr(owner, "__dict__") else []
        listed = ", ".join(names[:MAX_NAMES]) or "nothing"
        place = getattr(owner, "__file__", None) or getattr(owner, "__name__", owner)
        raise TaskError(f"{where}, but {place} has no {name!r}; it has: {listed}{did_you_mean(name, names)}") from None


def _describe_missing_module(module_name: str, folders: list[str], key: str) -> str:
    names = sorted({file.stem for folder in folders for file in Path(folder).glob("*.py")})
    listed = ", ".join(names[:MAX_NAMES]) or "no Python file"
    return (
        f"{key} names the module {module_name!r}, which is not found; "
        f"in {' and '.join(folders)} there is: {listed}{did_you_mean(module_name, names)}"
    )


def _describe_import_error(module_name: str, error: BaseException, key: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith("<frozen")), None)
    place = f" at {last.filename}, line {last.lineno}" if last else ""
    return f"{key}: importing {module_name!r} raised {type(error).__name__}: {error}{place}"
