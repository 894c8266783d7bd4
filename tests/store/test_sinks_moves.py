"""Rows that are archived, and rows in the order of the input."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from store_samples import labelled, read_csv, record, unlabelled
from store_sessions import LAYOUT, labels, run, session

from pipeline.records import Outcome, Status
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks


def test_a_retried_record_leaves_failed_and_enters_labels(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), unlabelled(1), labelled(2)])

    async def retry(ledger: Ledger) -> None:
        assert await ledger.archive(Selection(statuses=frozenset({Status.FAILED})), "retry") == 1

    run(tmp_path, [labelled(1)], before=retry)
    assert labels(tmp_path) == ["r0", "r2", "r1"]
    assert read_csv(tmp_path / "failed.csv") == []


@pytest.mark.parametrize("killed", [False, True])
def test_rows_archived_in_the_middle_of_a_session_are_gone_at_its_end(tmp_path: Path, killed: bool) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            old = [labelled(0, {"label": "a", "old": 1}), labelled(1)]
            await files.write(old, await ledger.commit(old, files.checkpoints()))
            await ledger.archive(Selection(keys=["r0"]), "relabel")
            new = [labelled(0, "b"), labelled(2)]
            await files.write(new, await ledger.commit(new, files.checkpoints()))
            if not killed:
                await files.finish()
            await files.close()
        if killed:
            await session(tmp_path)

    asyncio.run(main())
    assert [tuple(row.items()) for row in read_csv(tmp_path / "labels.csv")] == [
        (("id", "r1"), ("text", "text 1"), ("label", "positive")),
        (("id", "r0"), ("text", "text 0"), ("label", "b")),
        (("id", "r2"), ("text", "text 2"), ("label", "positive")),
    ]


ORDERED = Layout(labels=("label",), order="input")


def test_rows_in_the_inputs_order_come_when_the_session_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, ORDERED)
            for number in (2, 0, 3, 1, 5):
                batch = [labelled(number)]
                await files.write(batch, await ledger.commit(batch, files.checkpoints()))
            assert not list(tmp_path.glob("*.csv"))
            await files.finish()
        assert labels(tmp_path) == ["r0", "r1", "r2", "r3", "r5"]
        await session(tmp_path, [labelled(4)], layout=ORDERED)
        assert labels(tmp_path) == ["r0", "r1", "r2", "r3", "r4", "r5"]

    asyncio.run(main())


def test_an_end_with_gaps_and_what_comes_into_them_later(tmp_path: Path) -> None:
    run(tmp_path, [labelled(5), labelled(2)], layout=ORDERED)
    assert labels(tmp_path) == ["r2", "r5"]
    run(tmp_path, [labelled(3)], layout=ORDERED)
    assert labels(tmp_path) == ["r2", "r3", "r5"]


def test_a_session_that_is_killed_leaves_the_file_of_the_one_before(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), labelled(2)], layout=ORDERED)
    run(tmp_path, [labelled(1)], [labelled(3)], layout=ORDERED, finish=False)
    assert labels(tmp_path) == ["r0", "r2"]
    run(tmp_path, layout=ORDERED)
    assert labels(tmp_path) == ["r0", "r1", "r2", "r3"]


def test_records_of_one_ordinal_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is no longer in the input keeps its ordinal, and another may have it now."""
    same = [Outcome(record(number), Status.LABELLED, {"label": "x"}) for number in range(6)]
    twins = [
        Outcome(type(one.record)("s", at // 2, one.record.key, one.record.fields, 1, 1), one.status, one.label)
        for at, one in enumerate(same)
    ]
    monkeypatch.setattr(Ledger.rows_in_order, "__defaults__", ((-1, 0), 3))
    run(tmp_path, twins, layout=ORDERED)
    assert labels(tmp_path) == ["r0", "r1", "r2", "r3", "r4", "r5"]


def test_the_order_can_be_changed(tmp_path: Path) -> None:
    run(tmp_path, [labelled(1), labelled(0)])
    assert labels(tmp_path) == ["r1", "r0"]
    run(tmp_path, layout=ORDERED)
    assert labels(tmp_path) == ["r0", "r1"]
    run(tmp_path)
    assert labels(tmp_path) == ["r1", "r0"]
