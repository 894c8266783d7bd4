"""A folder and an environment of each test's own, so that no variable or .env of the machine is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """\
[input]
path = "data/reviews.jsonl"

[task]
prompt = "Label this: {{ text }}"
[task.labels]
label = ["positive", "negative"]

[model]
name = "gpt-6-luna"

[limits]
concurrency = 16
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the test: empty."""
    for name in [name for name in os.environ if name.upper().startswith("LABELPIPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(folder: Path) -> Callable[..., Path]:
    """Writes `config/a.toml`, a whole config unless told otherwise, and gives its path from the current directory."""

    def write(text: str = CONFIG, *, add: str = "", name: str = "a.toml") -> Path:
        path = Path("config", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + add, encoding="utf-8")
        return path

    return write
