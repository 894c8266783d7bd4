"""Records that say the same, counted at once: the same figures as one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gold import MeasuredField
from pipeline.measure.field_tally import FieldTally
from pipeline.measure.gold_pairs import Pair, grouping_keys
from pipeline.store import LabelRow

CLASSES = MeasuredField("topic", "class", ("a", "b"))
STARS = MeasuredField("stars", "class", ("1", "2", "3"), is_ordered=True, numbers={"1": 1.0, "2": 2.0, "3": 3.0})
TEXTS = MeasuredField("why", "text")
SAID = st.tuples(st.sampled_from(["a", "A", "1", "2", "x"]), st.sampled_from(["a", "b", "2", None]), st.integers(1, 5))


@pytest.mark.parametrize("label_field", [CLASSES, STARS, TEXTS])
@given(said=st.lists(SAID, max_size=8))
def test_records_counted_at_once_give_the_same_figures(
    label_field: MeasuredField, said: list[tuple[str, str | None, int]]
) -> None:
    one_by_one, at_once = FieldTally(label_field, "gold"), FieldTally(label_field, "gold")
    assert at_once.counts_alike
    for gold, label, times in said:
        found = {one_by_one.add(gold, label) for _ in range(times)}
        assert found == {at_once.add(gold, label, times=times)}
        at_once.without_label("failed", None, times)
        for _ in range(times):
            one_by_one.without_label("failed", None)
    assert at_once.facts() == one_by_one.facts()


@pytest.mark.parametrize(
    "label_field",
    [
        MeasuredField("n", "number"),
        MeasuredField("topics", "set", ("a", "b")),
        MeasuredField("half", "class", ("0.1", "0.2"), is_ordered=True, numbers={"0.1": 0.1, "0.2": 0.2}),
    ],
)
def test_fractions_are_added_in_the_order_of_the_records(label_field: MeasuredField) -> None:
    assert not FieldTally(label_field, "gold").counts_alike


def test_whole_numbers_that_no_float_holds_are_told_apart() -> None:
    amount, big = FieldTally(MeasuredField("amount", "number"), "gold"), 2**53
    assert [amount.add(str(big + 1), label) for label in (big + 1, big)] == [True, False]
    assert amount.facts()["mae"] == 0.5
    assert FieldTally(MeasuredField("amount", "number"), "gold").add(str(big), big + 1) is False


def pair(gold: Any, label: Any = None, rows: Any = None, place: int | None = None) -> Pair:
    return Pair("k", {"gold": gold}, LabelRow(1, "k", "labelled", None, label, rows, None, None, None), place)


def test_only_pairs_that_say_the_same_have_the_same_mark() -> None:
    label, rows = {"topic": "a"}, ({"part": "x"},)
    same = [pair("a", label, rows, 0), pair("a", label, rows, 0)]
    others = [
        pair("b", label, rows, 0),
        pair("a", {"topic": "b"}, rows, 0),
        pair("a", label, None, 0),
        pair("a", label, rows, 1),
    ]
    assert len(set(grouping_keys(same, ["gold"]))) == 1
    assert len(set(grouping_keys([*same, *others], ["gold"]))) == 5
    # To Python these are equal; as classes they are three.
    assert (
        len(set(grouping_keys([pair(1, label), pair(True, label), pair(1.0, label), pair(["a"], label)], ["gold"])))
        == 4
    )
