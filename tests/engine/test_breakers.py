"""Answers that come, are paid for, and are never a label: the run stops, and says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from oddserver import Call, good, night

from pipeline.engine import Ending
from pipeline.engine.first_records_breaker import FIRST_RECORDS
from pipeline.engine.mid_run_breaker import CALLBACKS
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


# -- in mid-run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["bad", "cut", "no"])
def test_answers_that_stop_being_labels_stop_the_run(moved_clock: RunOn, text: str) -> None:
    """All that was left was paid for and rejected, "Done"."""
    found = labelling(moved_clock, lambda call: text if call.count >= 60 else "good", concurrency=16)
    assert isinstance(found.stopped, NoLabelError)
    assert found.stopped.is_late
    told = str(found.stopped)
    assert f"none of the last {FIRST_RECORDS} records got a label, for one reason: {found.stopped.reason}" in told
    assert f"set_label({text})" in told
    assert "limits.stop_rejected = 0" in told
    assert len(found.labelled) == 60
    assert len(found.without) <= FIRST_RECORDS + 3 * 16 + 2


@pytest.mark.parametrize("text", ["bad", "cut", "no"])
@pytest.mark.parametrize("bad", [range(60, 360), range(45, 400)])
def test_a_hard_part_of_the_file_is_gone_through(moved_clock: RunOn, text: str, bad: range) -> None:
    found = labelling(moved_clock, lambda call: text if call.number in bad else "good", max_repairs=0)
    assert (found.ending, found.stopped, found.without) == (Ending.COMPLETE, None, set(bad))
    assert found.calls.total() <= 400 + 5 * 3, "records with a label are asked again after 40, 80, 160 ... without one"


def test_some_that_pass_are_no_reason_to_ask(moved_clock: RunOn) -> None:
    found = labelling(moved_clock, lambda call: "good" if call.number < 60 or call.number % 20 == 0 else "no")
    assert (found.ending, found.calls.total()) == (Ending.COMPLETE, 400)


def test_stop_rejected_0_goes_on_in_mid_run(moved_clock: RunOn) -> None:
    found = labelling(moved_clock, lambda call: "no" if call.count >= 60 else "good", share=0)
    assert (found.ending, len(found.without)) == (Ending.COMPLETE, 340)


def test_callbacks_that_all_fail_from_some_moment_stop_the_run(moved_clock: RunOn) -> None:
    """A database went away: all that was left was paid for and rejected at full speed."""
    found = labelling(moved_clock, lambda call: "boom" if call.count >= 60 else "good", concurrency=16)
    assert isinstance(found.stopped, NoLabelError)
    assert (found.stopped.reason, found.stopped.is_late) == ("callback_error", True)
    assert "labelpipe replay" in str(found.stopped)
    assert len(found.labelled) == 60
    assert CALLBACKS <= len(found.without) <= CALLBACKS + 3 * 16


@pytest.mark.parametrize(
    ("bad", "share"), [(range(60, 60 + CALLBACKS - 1), 1.0), (range(60, 400, 2), 1.0), (range(60, 400), 0.0)]
)
def test_some_callbacks_that_fail_do_not_stop_it(moved_clock: RunOn, bad: range, share: float) -> None:
    found = labelling(moved_clock, lambda call: "boom" if call.number in bad else "good", share=share)
    assert (found.ending, found.stopped, found.without) == (Ending.COMPLETE, None, set(bad))


@pytest.mark.parametrize(("word", "ending"), [("no", Ending.STOPPED), ("good", Ending.COMPLETE)])
def test_a_resumed_run_that_is_declined_throughout_asks_a_word(moved_clock: RunOn, word: str, ending: Ending) -> None:
    """There is no record of this session that got a label."""
    found = labelling(moved_clock, lambda call: word if call.number < 0 else "no", proven=True)
    assert (found.ending, isinstance(found.stopped, NoLabelError)) == (ending, ending is Ending.STOPPED)
