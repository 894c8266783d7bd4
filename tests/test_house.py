"""The house rules of docs/architecture.md, read from the imports."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pipeline

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

#: Floor of each room. A file imports from lower floors and from its own room only.
FLOORS = {
    "records": 0, "errors": 0, "codec": 0, "files": 0, "globs": 0, "terminal": 0, "threads": 0,
    "version": 0, "units": 0, "labelfields": 0,
    "readers": 1, "task": 1, "providers": 1, "limits": 1, "store": 1, "rehearsal": 1, "media": 1, "settings": 1,
    "stats": 1, "facts": 1, "progress": 1, "runlog": 1, "quality": 1, "loopback": 1,
    "engine": 2, "results": 2, "scaffold": 2, "notify": 2, "control": 2, "telemetry": 2, "targets": 2, "show": 2,
    "gold": 2, "leases": 2,
    "parts": 3, "batches": 3,
    "runner": 4,
    "planner": 5, "shards": 5, "measure": 5, "review": 5, "exports": 5,
    "report": 6,
    "api": 7, "cli": 8, "recipes": 8, "__init__": 8, "__main__": 9,
}  # fmt: skip

#: Which room a third-party package belongs to. More than one only with a reason.
OWNERS = {
    "orjson": {"codec"},
    "aiofiles": {"files"},
    # Prompts in a sandbox; the report and the page of a review, with everything in them escaped.
    "jinja2": {"task", "report", "review"},
    "pygal": {"report"},
    "jsonschema_rs": {"task"},
    "pydantic": {"settings", "task"},  # settings are models, and so may a user's labels be
    "pydantic_core": {"settings", "task"},
    "pydantic_settings": {"settings"},
    "dotenv": {"settings"},
    "tomli_w": {"settings"},
    "openai": {"providers"},
    "httpx2": {"providers"},
    "aiohttp": {"providers", "leases"},  # a shard calls the lease server
    "yarl": {"providers"},  # aiohttp's addresses and headers
    "multidict": {"providers"},
    # The same package serves and calls: two modules of it. One server is an API for programs, one serves pages.
    "aiohttp.web": {"rehearsal", "loopback", "leases"},
    "asyncio_throttle": {"limits"},
    "genai_prices": {"limits"},
    "tqdm": {"progress"},
    "pandas": {"api"},  # results as a frame
    "sklearn": {"exports"},  # the baseline
    "threadpoolctl": {"exports"},  # comes with sklearn
    "azure": {"providers"},
    "ray": {"shards"},
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
KNOWS_SETTINGS = {
    "settings",
    "parts",
    "runner",
    "planner",
    "shards",
    "measure",
    "exports",
    "cli",
    "__init__",
    "targets",
    "api",
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, str, int]]:
    """(module, name, line) of every import, lazy and typing ones too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [(node.module or "", alias.name, node.lineno) for alias in node.names]
    return found


def all_imports() -> Iterator[tuple[str, str, str, str]]:
    """(place, room, module, name) of every import in the package."""
    for path in files():
        for module, name, line in imports(path):
            yield f"{path.relative_to(ROOT)}:{line}", room_of(path), module, name


def ours(module: str, name: str) -> list[str] | None:
    """The path of a module of ours below the package, or None for a foreign one."""
    parts = module.split(".")
    if parts[0] != "pipeline":
        return None
    return parts[1:] or ([name] if name in FLOORS else ["__init__"])


def test_imports_point_down() -> None:
    wrong = []
    for place, room, module, name in all_imports():
        below = ours(module, name)
        if below is None or below[0] == room:
            continue
        if FLOORS[below[0]] >= FLOORS[room]:
            wrong.append(f"{place}: {room} (floor {FLOORS[room]}) imports {below[0]}")
    assert wrong == []


def test_nobody_goes_past_a_door() -> None:
    wrong = []
    for place, room, module, name in all_imports():
        below = ours(module, name)
        if below is not None and below[0] != room and len(below) > 1:
            wrong.append(f"{place}: goes past the door of {below[0]}: {module}")
    assert wrong == []


def test_each_dependency_has_one_room() -> None:
    wrong = []
    for place, room, module, name in all_imports():
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or top in {"pipeline", "__future__"}:
            continue
        known = next((key for key in (f"{module}.{name}", module, top) if key in OWNERS), None)
        if known is None:
            wrong.append(f"{place}: {top} belongs to no room: name it in tests/test_house.py")
        elif room not in OWNERS[known]:
            wrong.append(f"{place}: {known} belongs to {OWNERS[known]}, not to {room}")
    assert wrong == []


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


def test_doors_only_show() -> None:
    """What a door imports is what the room shows; nothing is made there."""
    for door in PACKAGE.glob("*/__init__.py"):
        docstring, *rest = tree_of(door).body
        assert isinstance(docstring, ast.Expr)
        made = [node for node in rest if not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign)]
        assert not made or door.parent.name == "cli", f"{door}:{made[0].lineno}: belongs behind the door"


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
    large = []
    for path in files():
        if path.read_text(encoding="utf-8").count("\n") > 400:
            large.append(f"{path} is over 400 lines: cut it")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno
                if lines > 60:
                    large.append(f"{path}:{node.lineno}: {node.name} has {lines} lines: cut it")
    assert large == []


def test_no_two_files_of_tests_have_the_same_name() -> None:
    """pytest imports them by their names alone: of two, it runs neither and stops."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
    assert {name for name, count in names.items() if count > 1} <= {"conftest.py"}


def test_no_catch_all_rooms() -> None:
    catch_all = {"utils", "helpers", "common", "misc", "base", "manager"}
    assert [path for path in files() if path.stem in catch_all] == []


#: Verbs of speaking and participles, which do not tell what a thing is.
VAGUE = {"told", "said", "kept", "held", "took", "taken", "shown", "meant", "asked", "heard"}
#: A key of `plan --json`.
IN_OUTPUT = {"facts.told"}


def test_names_tell_what_a_thing_is() -> None:
    vague = [
        f"{path}: {name}"
        for path in files()
        for name in _defined_names(tree_of(path))
        if name.strip("_").lower() in VAGUE and f"{path.stem}.{name}" not in IN_OUTPUT
    ]
    assert vague == []


def _defined_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
