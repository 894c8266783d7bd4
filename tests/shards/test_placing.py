"""Ray is an extra: who asks for it without having it is told its name, before anything is made."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pipeline.errors import MissingExtraError
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
