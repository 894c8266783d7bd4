"""The house rules of docs/architecture.md, read from the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

#: Floor of each room. A file imports from lower floors and from its own room only.
FLOORS = {
    "records": 0, "errors": 0, "codec": 0, "files": 0, "globs": 0, "terminal": 0, "threads": 0,
    "version": 0,
    "readers": 1, "task": 1, "providers": 1, "limits": 1, "store": 1, "rehearsal": 1, "media": 1, "settings": 1,
    "stats": 1, "facts": 1, "progress": 1, "runlog": 1,
    "engine": 2, "results": 2, "scaffold": 2, "notify": 2, "control": 2, "telemetry": 2, "targets": 2, "show": 2,
    "parts": 3,
    "runner": 4,
    "planner": 5,
    "api": 6, "cli": 7, "recipes": 7, "__init__": 7, "__main__": 8,
}  # fmt: skip

#: Which room a third-party package belongs to. More than one only with a reason.
OWNERS = {
    "orjson": {"codec"},
    "aiofiles": {"files"},
    "jinja2": {"task"},
    "jsonschema_rs": {"task"},
    "pydantic": {"settings", "task"},  # settings are models, and so may a user's labels be
    "pydantic_core": {"settings", "task"},
    "pydantic_settings": {"settings"},
    "dotenv": {"settings"},
    "tomli_w": {"settings"},
    "openai": {"providers"},
    "httpx2": {"providers"},
    "aiohttp": {"providers"},
    "yarl": {"providers"},  # aiohttp's addresses and headers
    "multidict": {"providers"},
    "aiohttp.web": {"rehearsal"},  # the same package serves and calls: two modules of it
    "asyncio_throttle": {"limits"},
    "genai_prices": {"limits"},
    "tqdm": {"progress"},
    "pandas": {"api"},  # results as a frame
    "PIL": {"media"},
    "pypdfium2": {"media"},
    "typer": {"cli"},
    "filelock": {"store"},
    "pyarrow": {"readers", "store"},  # Parquet in and Parquet out
    "zstandard": {"readers"},
    "fsspec": {"readers"},
    "sqlalchemy": {"readers", "store"},  # SQL in and SQL out
    "opentelemetry": {"telemetry"},
}
#: Who may know the settings.
KNOWS_SETTINGS = {"settings", "parts", "runner", "planner", "cli", "__init__", "targets", "api"}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """(module, name, line) of every import, lazy and typing ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.module or "", alias.name, node.lineno


def ours(module: str, name: str) -> list[str] | None:
    """The path of a module of ours below the package, or None for a foreign one."""
    parts = module.split(".")
    if parts[0] != "pipeline":
        return None
    return parts[1:] or ([name] if name in FLOORS else ["__init__"])


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    for module, name, line in imports(path):
        below = ours(module, name)
        if below is None or below[0] == room:
            continue
        assert FLOORS[below[0]] < FLOORS[room], f"{path}:{line}: {room} (floor {FLOORS[room]}) imports {below[0]}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_goes_past_a_door(path: Path) -> None:
    room = room_of(path)
    for module, name, line in imports(path):
        below = ours(module, name)
        if below is not None and below[0] != room:
            assert len(below) == 1, f"{path}:{line}: goes past the door of {below[0]}: {module}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_dependency_has_one_room(path: Path) -> None:
    room = room_of(path)
    for module, name, line in imports(path):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top in {"pipeline", "__future__"}:
            continue
        known = next((key for key in (f"{module}.{name}", module, top) if key in OWNERS), None)
        assert known is not None, f"{path}:{line}: {top} belongs to no room: name it in tests/test_house.py"
        assert room in OWNERS[known], f"{path}:{line}: {known} belongs to {OWNERS[known]}, not to {room}"


def test_only_the_upper_floors_know_the_settings() -> None:
    knowing = {
        room_of(path)
        for path in files()
        for module, name, _ in imports(path)
        if (ours(module, name) or [""])[0] == "settings"
    }
    assert knowing <= KNOWS_SETTINGS


def test_no_room_hides_a_public_name() -> None:
    """Importing a room sets its name on the package: a room `run` would replace the function that users import."""
    assert not set(FLOORS) & set(pipeline.__all__)


def test_every_room_has_a_floor_and_a_door() -> None:
    rooms = {room_of(path) for path in files()}
    assert rooms == set(FLOORS)
    for folder in {path.parent for path in files()} - {PACKAGE}:
        assert (folder / "__init__.py").exists(), f"{folder} has no door"


def test_doors_name_what_they_show() -> None:
    for door in PACKAGE.glob("*/__init__.py"):
        names = {
            target.id
            for node in ast.parse(door.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert "__all__" in names, f"{door} has no __all__"


def test_modules_do_not_go_in_circles() -> None:
    """No circle of imports among modules, lazy ones included."""
    edges: dict[str, set[str]] = {}
    for path in files():
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        edges[here] = {_target(module, name) for module, name, _ in imports(path)} & _modules() - {here}
    done: set[str] = set()
    for start in edges:
        _walk(start, edges, [], done)


def _target(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in _modules() else module


@cache
def _modules() -> set[str]:
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files()}


def _walk(module: str, edges: dict[str, set[str]], trail: list[str], done: set[str]) -> None:
    assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
    if module in done:
        return
    for target in sorted(edges.get(module, ())):
        _walk(target, edges, [*trail, module], done)
    done.add(module)


def test_no_file_and_no_function_grows_too_large() -> None:
    for path in files():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is over 400 lines: cut it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno
                assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines: cut it"


def test_no_catch_all_rooms() -> None:
    for path in files():
        assert path.stem not in {"utils", "helpers", "common", "misc", "base", "manager"}
