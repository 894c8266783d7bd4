"""Answers that come, are paid for, and are never a label: the run stops, and says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from oddserver import Call, good, night

from pipeline.engine import Ending
from pipeline.engine.brake import FIRST_RECORDS
from pipeline.errors import NoLabelError

RunOn = Callable[[Any], Any]
Says = Callable[[Call], str]


def labelling(run_on: RunOn, says: Says, count: int = 400, *, share: float = 1.0, **more: Any) -> Any:
    """A run whose model calls the function with what `says` gives; "bad", "cut" and "no" are no labels."""
    return night(run_on, lambda call: good(says(call)), count, stop_rejected=share, **more)


@pytest.mark.parametrize("text", ["bad", "cut", "no", "boom"])
def test_not_one_label_stops_the_run(moved_clock: RunOn, text: str) -> None:
    """A thousand records were asked three times each, paid for and rejected, and it said Done."""
    found = labelling(moved_clock, lambda _: text)
    assert found.ending is Ending.STOPPED
    assert isinstance(found.stopped, NoLabelError)
    told = str(found.stopped)
    assert f"none of the first {FIRST_RECORDS} records" in told
    assert f"set_label({text})" in told, "an answer as it came"
    assert "limits.stop_rejected = 0" in told
    assert FIRST_RECORDS <= len(found.outcomes) <= FIRST_RECORDS + 2 * 8 + 2, "what was in flight is kept"
    assert found.calls.total() < 3 * (FIRST_RECORDS + 3 * 8)


@pytest.mark.parametrize(
    ("says", "share"),
    [
        pytest.param(lambda call: "good" if call.number == 20 else "bad", 1.0, id="one label"),
        pytest.param(lambda call: ("bad", "cut", "no")[call.number % 3], 1.0, id="three reasons"),
        pytest.param(lambda call: "bad", 0, id="switched off"),
        pytest.param(lambda call: "bad" if call.number % 20 else "good", 0.99, id="a label in twenty"),
        pytest.param(lambda call: "bad" if call.number >= FIRST_RECORDS else "good", 1.0, id="later"),
    ],
)
def test_what_goes_on(moved_clock: RunOn, says: Says, share: float) -> None:
    found = labelling(moved_clock, says, 100, share=share, max_repairs=0)
    assert (found.ending, found.stopped, len(found.outcomes)) == (Ending.COMPLETE, None, 100)


def test_a_share_stops_a_run_with_some_labels(moved_clock: RunOn) -> None:
    found = labelling(moved_clock, lambda call: "good" if call.number % 30 == 0 else "bad", share=0.9, max_repairs=0)
    assert isinstance(found.stopped, NoLabelError)
    assert "only 2 of the first 40 records got a label" in str(found.stopped)


def test_a_small_run_is_asked_to_its_end(moved_clock: RunOn) -> None:
    found = labelling(moved_clock, lambda _: "bad", FIRST_RECORDS - 1)
    assert (found.ending, len(found.outcomes)) == (Ending.COMPLETE, FIRST_RECORDS - 1)
