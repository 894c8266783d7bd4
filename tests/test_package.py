"""The package from outside: `labelpipe` is `pipeline`, typed, and says where its pages are."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import labelpipe
import pipeline
from pipeline.cli.application import DOCS_URL

ROOT = Path(__file__).parent.parent


def test_labelpipe_has_the_names_of_pipeline() -> None:
    for name in pipeline.__all__:
        assert getattr(labelpipe, name) is getattr(pipeline, name)
    assert dir(labelpipe) == dir(pipeline)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from labelpipe import nothing")
    for package in (labelpipe, pipeline):
        assert Path(str(package.__file__)).with_name("py.typed").is_file()


@pytest.mark.parametrize("other", ["pipeline.py", "pipeline/__init__.py"])
def test_a_pipeline_of_the_users_own_is_named(tmp_path: Path, other: str) -> None:
    file = tmp_path / other
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('ran')\n")
    command = [sys.executable, "-c", "from labelpipe import run"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert f"{other} is found in its place. Rename that file or folder" in told.stderr


def test_the_project_says_where_its_pages_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Documentation"] == DOCS_URL
    assert {"Homepage", "Changelog", "Issues"} < set(project["urls"])
