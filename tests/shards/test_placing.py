"""Ray is an extra: who asks for it without having it is told its name, before anything is made."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.errors import MissingExtraError
from pipeline.planner import check
from pipeline.runner import RunOptions
from pipeline.settings import Settings
from pipeline.shards import run_in_shards


def test_ray_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = tmp_path / "job.toml"
    config.write_text(
        '[input]\npath = "in.jsonl"\n[task]\nprompt = "{{ text }}"\nlabels = {label = ["a", "b"]}\n'
        '[model]\nname = "gpt-6-luna"\n[output]\ndir = "run"\n[scale]\nshards = 2\nengine = "ray"\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[ray\]"):
        asyncio.run(run_in_shards(Settings.load(config), 2, RunOptions()))
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.skipif(not find_spec("ray"), reason="ray is not installed: pip install 'labelpipe[ray]'")
def test_check_says_what_goes_to_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    for folder in (here / "photos", outside):
        folder.mkdir(parents=True)
    for name in ("mine.py", "beside.py"):
        (here / name).write_text("def fine(label, record):\n    return None\n", encoding="utf-8")
    (here / "in.jsonl").write_text('{"text": "a", "photo": "1.png"}\n', encoding="utf-8")
    (outside / "keys.txt").write_text("a\n", encoding="utf-8")
    monkeypatch.chdir(here)
    tables = {
        "input": {"path": "in.jsonl", "keys": str(outside / "keys.txt")},
        "task": {"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}, "validators": [{"python": "mine:fine"}],
                 "media": {"images": ["photo"], "root": "photos"}},
        "model": {"name": "gpt-6-luna", "base_url": "rehearsal"},
    }  # fmt: skip

    def told(**scale: str) -> tuple[bool | None, str]:
        settings = Settings(**tables, scale={"engine": "ray", **scale})
        [found] = [one for one in asyncio.run(check(settings, online=False)) if one.name == "ray"]
        return found.ok, found.detail

    ok, shared = told()
    assert ok is None
    assert "beside.py, mine.py" in shared
    assert shared.startswith("nothing is sent to the nodes")
    assert told(folder="s3://bucket/runs") == (
        None,
        (
            "sent to the nodes with the run: beside.py, mine.py; needed on each node under the same name: "
            f"{outside / 'keys.txt'} (input.keys), in.jsonl (input.path), photos (task.media.root)"
        ),
    )
    tables["input"] = {"path": (here / "in.jsonl").as_uri()}
    del tables["task"]["media"]
    assert told(folder="s3://bucket/runs") == (True, "sent to the nodes with the run: beside.py, mine.py")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("pipeline.planner.checks.find_spec", lambda _: None)
    assert told()[1].endswith("pip install 'labelpipe[ray]'")
