"""The ledger: every outcome once, and what is asked of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import labelled, match, record, unlabelled

from pipeline.errors import StoreError
from pipeline.records import Status, Usage
from pipeline.store import Checkpoint, Checkpoints, Ledger, RowCounts, Selection, StoredOutcome
from pipeline.store.labelcounts import label_counts


def with_ledger(path: Path, work: Callable[[Ledger], Awaitable[None]]) -> None:
    async def main() -> None:
        async with await Ledger.open(path / "ledger.db") as ledger:
            await work(ledger)

    asyncio.run(main())


def test_seqs_are_consecutive_and_never_given_twice(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        assert await ledger.commit([labelled(0), labelled(1)]) == [1, 2]
        assert await ledger.archive(Selection(), "retry") == 2
        assert await ledger.commit([labelled(0)]) == [3]

    async def next_session(ledger: Ledger) -> None:
        await ledger.archive(Selection(), "retry")
        assert await ledger.last_seq() == 3
        assert await ledger.commit([labelled(5)]) == [4]

    with_ledger(tmp_path, work)
    with_ledger(tmp_path, next_session)


def test_a_key_that_has_an_outcome_is_refused_and_nothing_of_its_batch_is_kept(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0)])
        for batch in ([labelled(1), labelled(0)], [labelled(2), labelled(2)]):
            with pytest.raises(StoreError, match=f"'{batch[-1].record.key}'"):
                await ledger.commit(batch)
        assert (await ledger.count_by_status())[Status.LABELLED] == 1
        assert await ledger.commit([labelled(1)]) == [2]

    with_ledger(tmp_path, work)


def test_what_was_committed_is_there_in_the_next_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([labelled(0), unlabelled(1)])
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            assert await ledger.rows_after(0) == [(1, labelled(0)), (2, unlabelled(1))]
            assert await ledger.rows_after(1) == [(2, unlabelled(1))]

    asyncio.run(main())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db"]


def test_known_takes_batches_of_any_length(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(number) for number in range(0, 600, 2)])
        known = await ledger.known([f"r{number}" for number in range(600)])
        assert known.keys() == {f"r{number}" for number in range(0, 600, 2)}
        assert known["r2"] == StoredOutcome(
            digest=1002, status=Status.LABELLED, ordinal=2, line=3, source="data/in.jsonl"
        )
        assert await ledger.known([]) == {}

    with_ledger(tmp_path, work)


def test_a_key_that_came_before_in_this_pass_is_told_with_its_first_place(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        assert await ledger.find_duplicates([("a", "f:1"), ("b", "f:2"), ("a", "f:3")]) == {2: "f:1"}
        many = [(f"k{number}", f"g:{number}") for number in range(700)]
        assert await ledger.find_duplicates([*many, ("b", "g:800")]) == {700: "f:2"}
        await ledger.begin_pass()
        assert await ledger.find_duplicates([("a", "f:1")]) == {}

    with_ledger(tmp_path, work)


def test_an_identical_request_is_found_if_it_was_labelled(tmp_path: Path) -> None:
    first, other, failed, near = (bytes([number]) * 16 for number in range(4))
    near = first[:8] + near[8:]

    async def work(ledger: Ledger) -> None:
        await ledger.commit(
            [
                labelled(0, request_digest=first),
                labelled(1, request_digest=first, copied_from="r0"),
                unlabelled(2, request_digest=failed),
                labelled(3, request_digest=near),
            ]
        )
        found = await ledger.find_request([first, other, failed])
        assert {digest: outcome.record.key for digest, outcome in found.items()} == {first: "r0"}

    with_ledger(tmp_path, work)


def test_counts(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        assert set((await ledger.count_by_status()).values()) == {0}
        refused = unlabelled(3, "refused", Status.REJECTED)
        await ledger.commit([labelled(0), unlabelled(1), unlabelled(2), refused])
        counts = {Status.LABELLED: 1, Status.FAILED: 2, Status.REJECTED: 1}
        assert await ledger.count_by_status() == counts
        assert list((await ledger.problem_counts()).items()) == [("timeout", 2), ("refused", 1)]

    with_ledger(tmp_path, work)


def test_labels_are_counted_where_they_are_classes(tmp_path: Path) -> None:
    """Of a list each label counts. A free text, an object, many fractions and a damaged row count for nothing."""

    async def work(ledger: Ledger) -> None:
        columns = ("label", "sure", "why", "tags", "share", "half", "none", "long", "note", "parts", "whole")
        tags = (["x"], ["x", "y", "x"], [])
        outcomes = []
        for number in range(30):
            label = {"label": "ab"[number % 3 == 0], "sure": number % 5 == 0, "why": f"text {number}"}
            label |= {"tags": tags[number % 3], "long": "l" * (90 + number % 2), "note": "n" * (60 + number % 12)}
            label |= {"parts": [{"a": 1}], "whole": 1 if number % 2 else 1.0}
            label |= {"share": number % 14 / 20, "half": number % 2 / 2}
            copied_from = "r0" if number in (7, 8) else None
            outcomes.append(replace(labelled(number, copied_from=copied_from), label=label))
        await ledger.commit([*outcomes, unlabelled(30)])
        assert await ledger.label_counts(columns) == {
            "label": {"a": 20, "b": 10},
            "sure": {"false": 24, "true": 6},
            "tags": {"x": 20, "y": 10, "[]": 10},
            "half": {"0": 15, "0.5": 15},
            "long": {"l" * 90: 15, "l" * 91: 15},
            "whole": {"1": 30},
        }
        assert await ledger.copied() == 2

    with_ledger(tmp_path, work)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("UPDATE outcomes SET label = '{' WHERE key = 'r1'")
        assert label_counts(connection, ["label"]) == {"label": {"a": 19, "b": 10}}


def test_labels_of_several_rows_are_counted_once_a_record(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        common, twice = {"topic": "a"}, ({"kind": "x", "n": 1}, {"kind": "x"}, {"kind": "y", "n": None})
        await ledger.commit([replace(labelled(n), label=common, rows=twice if n % 2 else ()) for n in range(10)])
        assert await ledger.label_counts(("topic", "kind", "n")) == {
            "topic": {"a": 10}, "kind": {"x": 5, "y": 5}, "n": {"1": 5}
        }  # fmt: skip

    with_ledger(tmp_path, work)


def test_rows_are_counted_where_a_record_may_give_several(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        assert await ledger.row_counts() is None
        await ledger.commit([labelled(0), unlabelled(1)])
        assert await ledger.row_counts() is None, "each is one row"
        await ledger.commit([replace(labelled(2), rows=({"a": "[1]"}, {"a": 2})), replace(labelled(3), rows=())])
        assert await ledger.row_counts() == RowCounts(rows=3, without=1)

    with_ledger(tmp_path, work)


def test_an_answer_that_does_not_tell_its_usage_was_not_free(tmp_path: Path) -> None:
    """The status and the summary said $0.00. What was never answered costs nothing."""

    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0, usage=Usage(), cost_usd=None), unlabelled(1, cost_usd=None)])
        totals = await ledger.totals()
        assert (totals.usage, totals.cost_usd, totals.unpriced) == (Usage(), 0.0, 1)

    with_ledger(tmp_path, work)


def test_what_was_archived_stays_paid(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        unpriced = labelled(1, cost_usd=None)
        await ledger.commit([labelled(0), unpriced, unlabelled(2, cost_usd=None)])
        before = await ledger.totals()
        assert (before.usage, before.cost_usd, before.unpriced) == (Usage(20, 4, 8, 2, 6), 0.5, 1)
        assert (before.attempts, before.archived) == (8, 0)
        assert await ledger.archive(Selection(), "relabel") == 3
        assert await ledger.totals() == replace(before, archived=3)
        await ledger.commit([labelled(0)])
        assert (await ledger.totals()).usage == Usage(30, 6, 12, 3, 9)

    with_ledger(tmp_path, work)


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        (Selection(), []),
        (Selection(statuses=frozenset({Status.FAILED})), ["r0", "r3"]),
        (Selection(codes=frozenset({"timeout", "refused"})), ["r0", "r2"]),
        (Selection(statuses=frozenset({Status.FAILED}), codes=frozenset({"refused"})), ["r0", "r1", "r2", "r3"]),
        (Selection(keys=["r0", "r3", "nobody"]), ["r1", "r2"]),
        (Selection(keys=["r0", "r1"], statuses=frozenset({Status.LABELLED})), ["r1", "r2", "r3"]),
        (Selection(keys=[]), ["r0", "r1", "r2", "r3"]),
    ],
)
def test_a_selection_is_what_fits_everything_given(tmp_path: Path, selection: Selection, left: list[str]) -> None:
    async def work(ledger: Ledger) -> None:
        refused = unlabelled(3, "refused", Status.REJECTED)
        await ledger.commit([labelled(0), unlabelled(1), unlabelled(2, "unavailable"), refused])
        assert await ledger.archive(selection, "test") == 4 - len(left)
        assert [outcome.record.key for _, outcome in await ledger.rows_after(0)] == left

    with_ledger(tmp_path, work)


def test_a_replaced_outcome_is_counted_once(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0), labelled(1)])
        before = await ledger.totals()
        assert await ledger.replace([labelled(0, "negative")], "replay") == [3]
        assert await ledger.totals() == before
        assert await ledger.rows_after(0) == [(2, labelled(1)), (3, labelled(0, "negative"))]

    with_ledger(tmp_path, work)


def checkpoints_of(ledger: Ledger) -> Checkpoints:
    return Checkpoints({"labels.csv": Checkpoint(10, 2, "s")}, "{}", 1, ledger.generation)


def test_marks_are_stored_with_the_commit(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0)], checkpoints_of(ledger))
        assert await ledger.checkpoints() == {"labels.csv": Checkpoint(10, 2, "s")}
        assert (await ledger.meta_get("layout"), await ledger.meta_get("layout_seq")) == ("{}", "1")

    with_ledger(tmp_path, work)


@pytest.mark.parametrize(
    "change",
    [
        lambda ledger: ledger.archive(Selection(), "retry"),
        lambda ledger: ledger.replace([labelled(0)], "replay"),
        lambda ledger: match(ledger, [replace(record(0), ordinal=9)]),
    ],
)
def test_marks_that_count_rows_which_have_moved_are_worth_nothing(
    tmp_path: Path, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    async def work(ledger: Ledger) -> None:
        checkpoints = checkpoints_of(ledger)
        await ledger.commit([labelled(0)], checkpoints)
        await change(ledger)
        await ledger.commit([labelled(1)], checkpoints)
        assert (await ledger.checkpoints())["labels.csv"].is_stale

    with_ledger(tmp_path, work)


def test_outcomes_follow_their_records_and_rows_are_read_in_their_order(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.index_ordinals()
        await ledger.commit([labelled(2), labelled(0), labelled(1)])
        moved = replace(record(0), ordinal=7, line=70, source="b.csv")
        assert (await match(ledger, [record(1), record(2), moved, record(55)])).fresh == 1
        rows = await ledger.rows_in_order()
        assert [(seq, outcome.record.key) for seq, outcome in rows] == [(3, "r1"), (1, "r2"), (2, "r0")]
        assert (rows[2][1].record.line, rows[2][1].record.source) == (70, "b.csv")
        assert await ledger.rows_in_order((1, 3), 1) == rows[1:2]
        assert (await ledger.known(["r0"]))["r0"].ordinal == 7

    with_ledger(tmp_path, work)


def test_requests_are_counted_by_day(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_requests("2026-11-05", 3)
        await ledger.commit([], requests={"2026-11-05": 2, "2026-11-06": 1})
        days = [await ledger.requests_on(f"2026-11-0{day}") for day in (5, 6, 7)]
        assert days == [5, 1, 0]

    with_ledger(tmp_path, work)


def test_texts_are_kept_under_names(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        assert await ledger.meta_get("a") is None
        await ledger.meta_set("a", "1")
        await ledger.meta_set("a", "2")
        assert await ledger.meta_get("a") == "2"

    with_ledger(tmp_path, work)
