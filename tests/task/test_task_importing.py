from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path

import pytest

from pipeline.errors import TaskError
from pipeline.task.importing import import_object

THING = "thing = 'mine'\nclass Outer:\n    inner = 'deep'\n"


def test_a_module_beside_the_config(module) -> None:
    base = module(THING)
    assert import_object("mytools:thing", base, "task.python") == "mine"
    assert import_object("mytools:Outer.inner", base, "task.python") == "deep"


def test_a_module_in_the_working_directory(module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(THING, folder=tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    assert import_object("mytools:thing", tmp_path / "config", "task.python") == "mine"


def test_the_configs_folder_comes_first(module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("thing = 'work'", folder=tmp_path / "work")
    base = module("thing = 'config'", folder=tmp_path / "config")
    monkeypatch.chdir(tmp_path / "work")
    assert import_object("mytools:thing", base, "task.python") == "config"


def test_an_installed_module(tmp_path: Path) -> None:
    assert import_object("os.path:join", tmp_path, "task.python") is __import__("os").path.join


def test_a_package(module, tmp_path: Path) -> None:
    module("thing = 'packed'", name="inner", folder=tmp_path / "mypack")
    assert import_object("mypack.inner:thing", tmp_path, "task.python") == "packed"


def test_what_the_module_imports_later_is_found_but_hides_nothing(module) -> None:
    module("late = 1", name="mylate")
    base = module("def get():\n    import mylate\n    return mylate.late\n")
    before = list(sys.path)
    get = import_object("mytools:get", base, "task.python")
    assert get() == 1
    assert sys.path[: len(before)] == before, "the folders come last once the import is done"


def test_another_folders_module_of_the_same_name_is_the_one_that_is_used(module, tmp_path: Path) -> None:
    one = module("thing = 1", folder=tmp_path / "one")
    two = module("thing = 2", folder=tmp_path / "two")
    assert [import_object("mytools:thing", base, "task.python") for base in (one, two, one)] == [1, 2, 1]


def test_a_module_that_was_edited_is_read_again(module) -> None:
    """In a notebook a fixed callback has to be the one that runs."""
    base = module("thing = 'old'\nother = object()")
    other = import_object("mytools:other", base, "task.python")
    assert import_object("mytools:other", base, "task.python") is other, "unchanged: not imported twice"
    module("thing = 'mended'")
    os.utime(base / "mytools.py", ns=(1, 1))
    assert import_object("mytools:thing", base, "task.python") == "mended"


def test_a_module_that_the_user_imported_is_left_alone(module, monkeypatch: pytest.MonkeyPatch) -> None:
    base = module("thing = object()", name="myown")
    monkeypatch.syspath_prepend(base)
    own = importlib.import_module("myown")
    os.utime(base / "myown.py", ns=(1, 1))
    assert import_object("myown:thing", base, "task.python") is own.thing


def test_a_module_of_the_program_is_not_replaced(module) -> None:
    base = module("thing = 1", name="asyncio")
    with pytest.raises(TaskError, match=r"another module of that name is in use .*rename yours"):
        import_object("asyncio:thing", base, "task.python")
    assert sys.modules["asyncio"] is asyncio


@pytest.mark.parametrize(
    "reference", ["", "mytools", "mytools:", ":thing", "my tools:x", "a/b.py:x", "a:b:c", "a..b:c"]
)
def test_what_is_no_reference(tmp_path: Path, reference: str) -> None:
    with pytest.raises(TaskError, match="expected 'module:name'"):
        import_object(reference, tmp_path, "task.python")


def test_a_module_that_is_not_there(module, tmp_path: Path) -> None:
    base = module(THING)
    with pytest.raises(TaskError, match=r"'mytool', which is not found; in .* there is: .*did you mean 'mytools'"):
        import_object("mytool:thing", base, "task.python")
    with pytest.raises(TaskError, match=r"'mytools\.sub'"):
        import_object("mytools.sub:thing", base, "task.python")


def test_a_name_that_is_not_there(module) -> None:
    base = module(THING)
    with pytest.raises(TaskError, match=r"has no 'thin'; it has: thing, Outer \(did you mean 'thing'\?\)"):
        import_object("mytools:thin", base, "task.python")
    with pytest.raises(TaskError, match="Outer has no 'x'; it has: inner"):
        import_object("mytools:Outer.x", base, "task.python")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "importing 'mytools' raised SyntaxError"),
        ("x = 1\ny = 1 / 0\n", "raised ZeroDivisionError: division by zero at .*mytools.py, line 2"),
        ("import nosuchmodule_at_all\n", "raised ModuleNotFoundError: .*nosuchmodule_at_all.*mytools.py, line 1"),
        ("raise SystemExit(1)\n", "raised SystemExit: 1"),
    ],
)
def test_a_module_that_breaks_when_imported(module, source: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        import_object("mytools:thing", module(source), "task.python")
