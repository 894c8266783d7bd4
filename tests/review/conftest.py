"""Fixtures of the reviews' tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from review_runs import labelled_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviewed")
    labelled_run(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The run in `run`, its input beside it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path
