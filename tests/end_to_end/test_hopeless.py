"""What cannot work is not called done: a config that rejects every record stops, and costs nothing once mended."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import RunOptions, Settings, run
from pipeline.errors import ChangedError
from pipeline.stats import RunSummary

Go = Callable[..., RunSummary]
ROWS = [{"id": str(number), "text": f"text {number}"} for number in range(1_100)]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """A run over the rows of a table, always in the same folder."""

    def label(rows: list[dict[str, str]], *, key: str = "id", **task: Any) -> RunSummary:
        with (tmp_path / "in.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0] if rows else ["id", "text"])
            table.writeheader()
            table.writerows(rows)
        settings = Settings(
            input={"path": str(tmp_path / "in.csv"), "key": key},
            task={"prompt": "Label this: {{ text }}", "labels": {"label": ["pos", "neg"]}} | task,
            model={"name": "m", "base_url": "rehearsal"},
            output={"dir": str(tmp_path / "run"), "formats": ["csv"]},
            rehearsal={"latency_ms": 0},
        )
        return run(settings, RunOptions(quiet=True))

    return label


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"key": "idd"}, r"no_key 1,0\d\d.*'idd' is missing; the fields are id, text \(did you mean 'id'\?\)"),
        ({"prompt": "{{ txt }}"}, r"render_error .*uses 'txt'.*\(did you mean 'text'\?\)"),
        (
            {"prompt": "{{ image(text) }}"},
            r"media_error .*'text 0' cannot be read: No such file in .*task\.media\.root",
        ),
        ({"validators": [{"expression": "label.label in txt"}]}, "names 'txt'.*did you mean 'text'"),
    ],
)
def test_a_wrong_name_stops_the_run_and_the_right_one_begins_anew(go: Go, wrong: dict[str, Any], words: str) -> None:
    stopped = go(ROWS, **wrong)
    assert (stopped.exit_code, stopped.ended, stopped.calls, stopped.records) == (2, "stopped", 0, 0)
    assert re.search(words, stopped.reason)
    assert "retry" not in stopped.next_step
    # Nothing was paid for, so nothing asks whether to pay again.
    done = go(ROWS[:20])
    assert (done.exit_code, done.labelled, done.problems) == (0, 20, {})


def test_an_input_without_records_is_not_done(go: Go) -> None:
    stopped = go([])
    assert (stopped.exit_code, stopped.ended) == (2, "stopped")
    assert re.search(r"the input has no records.*in\.csv", stopped.reason)
    assert go(ROWS[:3]).exit_code == 0


def test_a_few_bad_records_are_rejected_and_retry_is_not_said_to_help(go: Go) -> None:
    blank = {"id": "b", "text": "  "}
    rows = [blank, *ROWS[:5], {"id": "", "text": "x"}]
    done = go(rows)
    assert (done.exit_code, done.labelled, done.problems) == (1, 5, {"empty_text": 1, "no_key": 1})
    assert done.next_step.startswith("fix these records")
    with pytest.raises(ChangedError, match=r"(?s)affects 7 of 7 records.*the answers to 5 records are paid for again"):
        go(rows, prompt="What is it? {{ text }}")
