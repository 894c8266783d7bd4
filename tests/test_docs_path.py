"""The path of a record in docs/architecture.md is the one that a record takes, and no longer than twelve steps."""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from test_docs import text_of
from test_house import FLOORS, PACKAGE, room_of

from pipeline import RunOptions, Settings, run
from pipeline.engine.writer import BATCH

#: packages that are at work on each record and do not pass it on: the server that is called, and the counters
BESIDE = {"rehearsal", "stats"}


def steps() -> list[tuple[str, str]]:
    """(package, text) of each step of the page."""
    part = text_of("architecture.md").partition("\n## The path of one record\n")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. \*\*[^*]+\*\* \(`(\w+)`\)\.((?:.|\n   )+)", part, re.MULTILINE)


@contextmanager
def counted_calls() -> Iterator[Counter[CodeType]]:
    """How often each function of ours is called, in all threads that begin meanwhile."""
    counts: Counter[CodeType] = Counter()

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
            counts[frame.f_code] += 1

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def _calls(folder: Path, records: int) -> Counter[CodeType]:
    settings = Settings(
        input={"key": "id", "where": "text != ''"},
        task={"prompt": "Label this text: {{ text }}", "labels": {"label": ["yes", "no"]}},
        model={"name": "gpt-6-luna", "base_url": "rehearsal"},
        output={"dir": str(folder), "report": False},
    )
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(records)]
    with counted_calls() as counts:
        assert run(settings, RunOptions(quiet=True), records=rows).labelled == records
    return counts


def test_the_path_has_at_most_twelve_steps() -> None:
    assert 8 <= len(steps()) <= 12


def test_the_path_names_the_packages_that_each_record_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with a function that each record calls at least once. The lowest layer is everywhere."""
    monkeypatch.chdir(tmp_path)
    few, many = _calls(tmp_path / "few", 10), _calls(tmp_path / "many", 60)
    grown = [room_of(Path(code.co_filename)) for code in many if many[code] - few[code] >= 50]
    assert {package for package in grown if FLOORS[package]} - BESIDE == {package for package, _ in steps()}


def test_the_size_of_a_commit_is_that_of_the_code() -> None:
    (text,) = [text for package, text in steps() if package == "runner"]
    assert f"at most {BATCH} outcomes" in " ".join(text.split())
