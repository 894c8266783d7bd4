"""`labelpipe demo`: a whole run without a key, wherever it is tried."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.cli.rehearse_commands import _HEAD

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; the demo is made short, and what the environment says of a server is not heeded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELPIPE_INPUT__LIMIT", "8")
    monkeypatch.setenv("LABELPIPE_REHEARSAL__LATENCY_MS", "1")
    monkeypatch.setenv("LABELPIPE_MODEL__BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def do(*words: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, list(words))


def test_the_demo_labels_verifies_and_says_how_to_go_on(here: Path) -> None:
    for again in ("", "again"):
        told = do("demo")
        assert told.exit_code == 0, told.output
        for wanted in ("8 labelled", "r0001,I love this product!,", "run: verified.", "labelpipe init    FILE"):
            assert wanted in told.output, f"{again}: {told.output}"
    assert [path.name for path in here.iterdir()] == ["labelpipe-demo"]
    assert do("run", "labelpipe-demo/demo.toml", "--set", "model.base_url=rehearsal").exit_code == 0


def test_the_picture_shows_what_the_demo_says() -> None:
    """Else it is to be made anew: python docs/picture.py"""
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    lines = [unescape(re.sub(r"<[^>]+>", "", line)).replace("\xa0", " ") for line in picture.split("</text>")]
    shown = " ".join("".join(lines).split())
    for wanted in (*_HEAD.format(folder="labelpipe-demo").strip().splitlines(), "300 labelled", "run: verified."):
        assert wanted in shown
    assert "http" not in picture.replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")


def test_the_demo_replaces_nothing_but_a_demo(here: Path) -> None:
    mine = here / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    told = do("demo", "--to", "mine")
    assert told.exit_code == 2
    assert "mine already exists and is not a demo" in told.output
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
