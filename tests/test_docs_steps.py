"""The tutorial is followed step by step. The configs of docs/servers.md: tests/test_servers.py."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from test_docs import DOCS, ROOT, blocks
from typer.testing import CliRunner

from pipeline.cli import app


def test_the_tutorial_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands in their order, as they stand, and the classifier at the end."""
    pytest.importorskip("sklearn", reason="scikit-learn is not here: make test installs it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shutil.copy(ROOT / "data" / "reviews.csv", tmp_path)
    page = DOCS / "tutorial.md"
    commands = [line for block in blocks("sh", [page]) for line in block.text.splitlines()]
    for command in commands:
        name, *words = shlex.split(command)
        told = CliRunner().invoke(app, words)
        assert name == "labelpipe"
        # Without a key `check` has something to say: the page goes on without one.
        assert told.exit_code == 0, f"{command}: {told.output}"
    (program,) = blocks("python", [page])
    shown: list[str] = []
    exec(compile(program.text, str(page), "exec"), {"print": shown.append})
    assert [re.sub(r"\d+%", "N%", line) for line in shown] == [
        "N% of unseen texts: as the model",
        "N% of unseen texts: as a person",
    ]


def test_what_the_tutorial_shows_of_the_config_is_what_init_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "data" / "reviews.csv", tmp_path)
    assert CliRunner().invoke(app, ["init", "reviews.csv"]).exit_code == 0
    written = tomllib.loads(Path("config/reviews.toml").read_text(encoding="utf-8"))
    (shown,) = (tomllib.loads(block.text) for block in blocks("toml", [DOCS / "tutorial.md"]))
    for table, keys in shown.items():
        assert {name: written[table][name] for name in keys} == keys
