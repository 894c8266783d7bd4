"""What a glob stands for: what the module `glob` says, and no folder twice where links lead in circles."""

from __future__ import annotations

import glob
import os
import tempfile
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.globs import matching

NAMES = ["a", "b", "ab", ".a", "a.x", ".b.x", "[a]", "A"]
PARTS = ["**", "*", "a", "b", "a*", "*.x", ".*", "[ab]", "?", "[[]a]", "**.x", "[.]a", "nothing"]


def found(pattern: str, base: Path) -> list[str]:
    """Each name once, as a path has it. More names than any tree here has are a walk without an end."""
    names = list(islice(matching(pattern, base), 10_000))
    assert len(names) < 10_000
    return sorted({Path(name).as_posix() for name in names})


def globbed(pattern: str, base: Path) -> list[str]:
    names = glob.glob(pattern, root_dir=base, recursive=True)  # noqa: PTH207 - it is what this is measured by
    return sorted({Path(name).as_posix() for name in names if os.path.lexists(base / name)})


@given(
    tree=st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=12),
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    absolute=st.booleans(),
    slash=st.booleans(),
)
def test_without_links_it_is_the_glob_of_python(
    tree: list[list[str]], parts: list[str], absolute: bool, slash: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for *folders, name in tree:
            inner = base.joinpath(*folders)
            try:
                inner.mkdir(parents=True, exist_ok=True)
                (inner / name).touch()
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # a file is there where a folder would be
        pattern = "/".join(parts) + "/" * slash
        if absolute:
            pattern = f"{glob.escape(base.as_posix())}/{pattern}"
        assert found(pattern, base) == globbed(pattern, base)


def test_a_pattern_is_relative_to_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").touch()
    monkeypatch.chdir(tmp_path)
    assert sorted(matching("**/*")) == ["in", "in/a"]
    assert list(matching("./in/../in/?")) == ["in/../in/a"]


def linked(base: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (base / name).symlink_to(target)


@pytest.mark.parametrize("names", ["a", "ab", "abcdefgh"])
def test_links_that_lead_upwards_end(names: str, tmp_path: Path) -> None:
    """One gave 41 names for the file, two never ended."""
    (tmp_path / "cyc").mkdir()
    (tmp_path / "cyc/x").touch()
    linked(tmp_path / "cyc", dict.fromkeys(names, "."))
    assert found("cyc/**/x", tmp_path) == ["cyc/x"]
    assert found("cyc/**/*", tmp_path) == sorted(["cyc/x", *(f"cyc/{name}" for name in names)])
    assert found("**/cyc/**/x", tmp_path) == ["cyc/x"]


def test_a_folder_is_walked_under_its_plainest_name(tmp_path: Path) -> None:
    """Whatever the order of the names: `aa` is a link, `real` is none; and both lie behind a link to all of it."""
    (tmp_path / "all/real/deep").mkdir(parents=True)
    (tmp_path / "all/real/deep/x").touch()
    linked(tmp_path, {"all/aa": "real", "all/real/up": "..", "here": "all"})
    assert found("all/**/x", tmp_path) == ["all/real/deep/x"]
    assert found("here/**/x", tmp_path) == ["here/real/deep/x"]
    assert found("**/x", tmp_path) == ["all/real/deep/x"]
    assert found("all/*/**/x", tmp_path) == ["all/real/deep/x"]


def test_a_folder_elsewhere_is_walked_by_the_first_of_its_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/x").touch()
    (tmp_path / "in").mkdir()
    linked(tmp_path / "in", {"l2": "../elsewhere", "l1": "../elsewhere/deep", "loop": "loop"})
    assert found("in/**/x", tmp_path) == ["in/l1/x"]
    assert found("in/*/x", tmp_path) == ["in/l1/x"]
    assert found("in/l2/**/x", tmp_path) == ["in/l2/deep/x"]
