"""Which columns the files have."""

from __future__ import annotations

from store_samples import labelled, unlabelled

from pipeline.store.layout import ABOUT, Layout


def test_columns_grow_as_records_bring_them() -> None:
    layout = Layout(labels=("label",)).following(None)
    layout = layout.grown([labelled(0, fields={"id": 1}), labelled(1, fields={"text": "x", "id": 2})])
    assert layout.label_table().titles == ("id", "text", "label")
    assert layout.grown([labelled(2, fields={"id": 3})]) is layout


def test_named_columns_do_not_grow_but_a_callbacks_do() -> None:
    layout = Layout(labels=("label",), columns=("id",), fixed=True).following(None)
    layout = layout.grown([labelled(0)])
    assert layout.label_table().titles == ("id", "label")
    grown = layout.grown([labelled(0, fields={"id": 1}, label={"label": "a", "score": 3})])
    assert grown.label_table().titles == ("id", "label", "score")


def test_unreadable_records_bring_columns_to_failed_only() -> None:
    layout = Layout(labels=("label",), columns=("text",)).following(None).grown([unlabelled(0)])
    assert layout.label_table().titles == ("text", "label")
    assert layout.failed_table().titles == (*ABOUT, "text", "id")


def test_a_carried_column_gives_way_to_a_label() -> None:
    layout = Layout(labels=("label",), columns=("label", "input_label", "id"), fixed=True).following(None)
    assert layout.label_table().titles == ("input_input_label", "input_label", "id", "label")
    outcome = labelled(0, fields={"label": "gold", "input_label": "x", "id": 7})
    assert layout.label_table().rows(outcome) == [["gold", "x", 7, "positive"]]


def test_a_carried_column_gives_way_to_what_failed_says() -> None:
    layout = Layout(labels=("label",), columns=("key", "code"), fixed=True)
    assert layout.failed_table().titles == (*ABOUT, "input_key", "input_code")


def test_a_record_without_a_column_has_an_empty_cell() -> None:
    table = Layout(labels=("label",), columns=("id", "note"), fixed=True).label_table()
    assert table.rows(labelled(3, fields={"id": 3})) == [[3, None, "positive"]]


def test_the_next_session_keeps_the_columns_and_their_order() -> None:
    before = Layout(labels=("label",)).following(None).grown([labelled(0), unlabelled(1)])
    layout = Layout(labels=("label", "why"), columns=("new", "text")).following(before)
    assert layout.label_table().titles == ("id", "text", "new", "label", "why")
    assert layout.failed_table().titles == (*ABOUT, "id", "text", "new")
    assert layout.knows_rows_of(before)


def test_a_label_that_the_task_has_no_more_stays_for_the_rows_that_have_it() -> None:
    before = Layout(labels=("label", "why"), found=("score",))
    assert Layout(labels=("label",)).following(before).found == ("why", "score")


def test_after_named_columns_all_rows_have_to_be_looked_at() -> None:
    before = Layout(labels=("label",), columns=("id",), fixed=True)
    assert not Layout(labels=("label",)).knows_rows_of(before)
    assert Layout(labels=("label",), columns=("text",), fixed=True).knows_rows_of(before)


def test_it_comes_back_from_its_text() -> None:
    layout = Layout(("a", "\ud800"), ("b",), True, ("csv", "jsonl"), "input", True, ("c",), ("d",))
    assert Layout.from_text(layout.to_text()) == layout
