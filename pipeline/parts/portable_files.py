"""Finds the files that a run on other machines needs: those small enough to be sent along, and the rest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.parts.labels import label_file
from pipeline.parts.media import folder_of_media
from pipeline.settings import Settings

#: Endings of files of labels. Inputs and media are not sent: they may have any size.
_TABLES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True, slots=True)
class PortableFiles:
    """`files` can be sent along, and keep their paths relative to the current directory.

    `stays` are those that must be on every machine under the same name: each with its name in the config and its path.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    stays: tuple[tuple[str, str], ...] = ()


def portable_files(settings: Settings) -> PortableFiles:
    """Return what travels with the run and what does not, such as files outside the current directory."""
    files, stays, here = dict[str, Path](), list[tuple[str, str]](), Path.cwd()
    for key, path in _small(settings):
        absolute = path.absolute()
        if absolute.is_relative_to(here) and absolute.is_file():
            files[str(absolute.relative_to(here))] = absolute
        else:
            stays.append((key, str(path)))
    stays += [("input.path", path) for path in settings.inputs() if "://" not in path]
    if settings.task.media.images or settings.task.media.audio or settings.task.media.documents:
        stays.append(("task.media.root", str(folder_of_media(settings))))
    return PortableFiles(files, tuple(dict.fromkeys(stays)))


def _small(settings: Settings) -> Iterator[tuple[str, Path]]:
    task = settings.task
    if settings.config_path is not None:
        yield "the config", settings.config_path
    paths = {
        "input.keys": settings.input.keys,
        "task.examples_file": task.examples_file,
        "quality.gold": settings.quality.gold,
        "task.function.parameters": None if task.function is None else task.function.parameters,
        **{f"task.tools[{at}].parameters": tool.parameters for at, tool in enumerate(task.tools or ())},
    }
    yield from ((key, settings.find(path)) for key, path in paths.items() if isinstance(path, str))
    for field_name, form in (task.labels or {}).items():
        name = form.get("any_of") if isinstance(form, dict) else form
        if isinstance(name, str) and Path(name).suffix in _TABLES:
            yield f"task.labels.{field_name}", label_file(settings, name)
    yield from _modules(settings)


def _modules(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the files of the user's code, and those next to them, which it may import."""
    task = settings.task
    places = {"task.python": task.python, "task.callback": task.callback}
    for at, tool in enumerate(task.tools or ()):
        places |= {f"task.tools[{at}].python": tool.python, f"task.tools[{at}].callback": tool.callback}
    places |= {f"task.validators[{at}].python": one.python for at, one in enumerate(task.validators)}
    folders = [str(folder.absolute()) for folder in (_base(settings), Path.cwd())]
    for key, place in places.items():
        spec = None if place is None else PathFinder.find_spec(place.partition(":")[0].partition(".")[0], folders)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            pattern = "**/*.py" if spec.submodule_search_locations else "*.py"
            yield from ((key, path) for path in sorted(origin.parent.glob(pattern)))
        elif place is not None:  # installed, so not the user's file
            yield key, Path(place)


def _base(settings: Settings) -> Path:
    return Path() if settings.config_path is None else settings.config_path.parent
