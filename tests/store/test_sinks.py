"""The files of rows: what is in them, and that they follow the ledger through every crash."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from store_samples import labelled, read_csv, record, unlabelled

from pipeline.errors import StoreError
from pipeline.records import Outcome, Status
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks, sinks

LAYOUT = Layout(labels=("label",))


async def session(
    path: Path,
    *batches: Sequence[Outcome],
    layout: Layout = LAYOUT,
    finish: bool = True,
    all_done: bool = True,
    before: Any = None,
) -> None:
    """A session of a run: each batch into the ledger and the files, as the engine's writer does it."""
    async with await Ledger.open(path / "ledger.db") as ledger:
        if before is not None:
            await before(ledger)
        files = await Sinks.start(RunDir(path), ledger, layout)
        for batch in batches:
            await files.write(batch, await ledger.commit(batch, files.marks()))
        if finish:
            await files.finish(all_done=all_done)
        await files.close()


def run(path: Path, *batches: Sequence[Outcome], **more: Any) -> None:
    asyncio.run(session(path, *batches, **more))


def labels(path: Path, column: str = "id") -> list[str]:
    return [row[column] for row in read_csv(path / "labels.csv")]


def test_each_outcome_is_in_one_file(tmp_path: Path) -> None:
    refused = unlabelled(2, "refused", Status.REJECTED, attempts=2)
    run(tmp_path, [labelled(0), unlabelled(1)], [refused, labelled(3, 'a "b",\nc')])
    assert (tmp_path / "labels.csv").read_bytes() == (b'id,text,label\nr0,text 0,positive\nr3,text 3,"a ""b"",\nc"\n')
    assert (tmp_path / "failed.csv").read_bytes() == (
        b"key,source,line,status,code,message,attempts,id,text\n"
        b"r1,data/in.jsonl,2,failed,timeout,no label: timeout,6,r1,text 1\n"
        b"r2,data/in.jsonl,3,rejected,refused,no label: refused,2,r2,text 2\n"
    )


def test_a_run_without_rows_has_headers(tmp_path: Path) -> None:
    run(tmp_path, layout=Layout(labels=("label",), columns=("id",)))
    assert (tmp_path / "labels.csv").read_text() == "id,label\n"
    assert (tmp_path / "failed.csv").read_text() == "key,source,line,status,code,message,attempts,id\n"


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)], [labelled(1)], finish=False)
    assert labels(tmp_path) == ["r0", "r1"]


def test_json_lines(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), formats=("jsonl",))
    run(tmp_path, [labelled(0, fields={"id": 1, "tags": ["a"]}), unlabelled(1)], [labelled(2)], layout=layout)
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": 1, "tags": ["a"], "text": None, "label": "positive"},
        {"id": "r2", "tags": None, "text": "text 2", "label": "positive"},
    ]
    assert not (tmp_path / "labels.csv").exists()
    assert len(read_csv(tmp_path / "failed.csv")) == 1


def test_formulas_are_escaped_when_asked(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), escape_formulas=True)
    run(tmp_path, [labelled(0, "=1+1", fields={"@id": "-x"})], layout=layout)
    assert read_csv(tmp_path / "labels.csv") == [{"'@id": "'-x", "label": "'=1+1"}]


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks move with every few rows, and every growth of columns is one of a large file."""
    monkeypatch.setattr(sinks, "SYNC_BYTES", 60)
    monkeypatch.setattr(sinks, "SMALL_BYTES", 40)


OUTCOMES = [unlabelled(number) if number % 4 == 1 else labelled(number, "a\n,b") for number in range(14)]
BATCHES = [OUTCOMES[:3], OUTCOMES[3:4], OUTCOMES[4:9], OUTCOMES[9:]]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("order", ["completion", "input"])
def test_a_file_cut_at_any_byte_is_mended(tmp_path: Path, order: str) -> None:
    """A crash leaves a part of what was written after the last mark; a careless hand leaves anything."""
    layout = Layout(labels=("label",), formats=("csv", "jsonl"), order=order)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run(whole, *BATCHES, layout=layout)
    run(killed, *BATCHES, layout=layout, finish=False)
    names = ["labels.csv", "labels.jsonl", "failed.csv"]
    wanted = {name: (whole / name).read_bytes() for name in names}
    for cut in range(0, len(wanted["labels.jsonl"]) + 12, 11):
        torn = tmp_path / "torn"
        shutil.copytree(killed, torn)
        for name in names:
            with (torn / name).open("r+b") as file:
                file.truncate(cut)  # beyond the end: zeros, as a power cut leaves them
        run(torn, layout=layout)
        assert {name: (torn / name).read_bytes() for name in names} == wanted
        shutil.rmtree(torn)


@pytest.mark.usefixtures("small_steps")
def test_marks_move_with_the_commits(tmp_path: Path) -> None:
    async def main() -> None:
        await session(tmp_path, *BATCHES, finish=False)
        async with await Ledger.open(tmp_path / "ledger.db", read_only=True) as ledger:
            mark = (await ledger.sink_marks())["labels.csv"]
        assert 0 < mark.bytes < (tmp_path / "labels.csv").stat().st_size
        assert (tmp_path / "labels.csv").read_bytes()[: mark.bytes].endswith(b"\n")

    asyncio.run(main())


@pytest.mark.parametrize("name", ["labels.csv", "failed.csv"])
def test_a_file_that_was_deleted_or_has_another_header_is_built_anew(tmp_path: Path, name: str) -> None:
    run(tmp_path, *BATCHES)
    wanted = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    run(tmp_path)
    assert (tmp_path / name).read_bytes() == wanted
    (tmp_path / name).write_bytes(b"X" + wanted[1:])
    run(tmp_path)
    assert (tmp_path / name).read_bytes() == wanted


def test_a_crash_between_commit_and_row_loses_no_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            await files.write(OUTCOMES[:3], await ledger.commit(OUTCOMES[:3], files.marks()))
            await ledger.commit(OUTCOMES[3:], files.marks())
            await files.close()
        await session(tmp_path)

    asyncio.run(main())
    assert labels(tmp_path) == [outcome.record.key for outcome in OUTCOMES if outcome.status is Status.LABELLED]


def test_a_crash_in_the_middle_of_a_rebuild_leaves_the_old_file_and_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, *BATCHES)
    wanted = (tmp_path / "labels.csv").read_bytes()
    other = Layout(labels=("label",), columns=("text",), fixed=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StoreError, match="No space left on device"):
            run(tmp_path, layout=other)
    assert (tmp_path / "labels.csv").read_bytes() == wanted
    run(tmp_path, layout=other)
    assert read_csv(tmp_path / "labels.csv")[0] == {"text": "text 0", "label": "a\n,b"}
    assert len(labels(tmp_path, "text")) == len(labels(tmp_path, "label")) == 10


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_column_changes_a_short_file_at_once(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)], [labelled(1, fields={"id": "r1", "late": 5})], finish=False)
    assert read_csv(tmp_path / "labels.csv") == [
        {"id": "r0", "text": "text 0", "late": "", "label": "positive"},
        {"id": "r1", "text": "", "late": "5", "label": "positive"},
    ]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("ends", ["finish", "next session"])
def test_a_new_column_changes_a_long_file_at_the_end(tmp_path: Path, ends: str) -> None:
    late = labelled(50, {"label": "x", "score": 1}, fields={"id": "r50", "late": 5})
    run(tmp_path, OUTCOMES, [late], [labelled(51)], finish=ends == "finish")
    if ends == "next session":
        assert "late" not in read_csv(tmp_path / "labels.csv")[-1]
        assert labels(tmp_path)[-2:] == ["r50", "r51"]
        run(tmp_path)
    assert read_csv(tmp_path / "labels.csv")[-2:] == [
        {"id": "r50", "text": "", "late": "5", "label": "x", "score": "1"},
        {"id": "r51", "text": "text 51", "late": "", "label": "positive", "score": ""},
    ]


def test_other_columns_need_no_call(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), unlabelled(1)])
    run(tmp_path, layout=Layout(labels=("label",), columns=("text",), fixed=True))
    assert read_csv(tmp_path / "labels.csv") == [{"text": "text 0", "label": "positive"}]
    run(tmp_path)
    assert read_csv(tmp_path / "labels.csv") == [{"text": "text 0", "id": "r0", "label": "positive"}]


def test_a_format_that_comes_later_has_all_rows(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)])
    run(tmp_path, [labelled(1)], layout=Layout(labels=("label",), formats=("csv", "jsonl")))
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2


# ── rows that are set aside ──────────────────────────────────────────────────────────────────────────────────────


def test_a_retried_record_leaves_failed_and_enters_labels(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), unlabelled(1), labelled(2)])

    async def retry(ledger: Ledger) -> None:
        assert await ledger.supersede(Selection(statuses=frozenset({Status.FAILED})), "retry") == 1

    run(tmp_path, [labelled(1)], before=retry)
    assert labels(tmp_path) == ["r0", "r2", "r1"]
    assert read_csv(tmp_path / "failed.csv") == []


@pytest.mark.parametrize("killed", [False, True])
def test_rows_set_aside_in_the_middle_of_a_session_are_gone_at_its_end(tmp_path: Path, killed: bool) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            old = [labelled(0, {"label": "a", "old": 1}), labelled(1)]
            await files.write(old, await ledger.commit(old, files.marks()))
            await ledger.supersede(Selection(keys=["r0"]), "relabel")
            new = [labelled(0, "b"), labelled(2)]
            await files.write(new, await ledger.commit(new, files.marks()))
            if not killed:
                await files.finish(all_done=True)
            await files.close()
        if killed:
            await session(tmp_path)

    asyncio.run(main())
    assert [tuple(row.items()) for row in read_csv(tmp_path / "labels.csv")] == [
        (("id", "r1"), ("text", "text 1"), ("label", "positive")),
        (("id", "r0"), ("text", "text 0"), ("label", "b")),
        (("id", "r2"), ("text", "text 2"), ("label", "positive")),
    ]


# ── the input's order ────────────────────────────────────────────────────────────────────────────────────────────

ORDERED = Layout(labels=("label",), order="input")


def test_rows_wait_for_those_before_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, ORDERED)
            seen = []
            for number in (2, 0, 3, 1, 5):
                batch = [labelled(number)]
                await files.write(batch, await ledger.commit(batch, files.marks()))
                seen.append(labels(tmp_path))
            assert seen == [[], ["r0"], ["r0"], ["r0", "r1", "r2", "r3"], ["r0", "r1", "r2", "r3"]]
            await files.finish(all_done=False)
        assert labels(tmp_path) == ["r0", "r1", "r2", "r3"]
        await session(tmp_path, [labelled(4)], layout=ORDERED)
        assert labels(tmp_path) == ["r0", "r1", "r2", "r3", "r4", "r5"]

    asyncio.run(main())


def test_an_end_with_gaps_and_what_comes_into_them_later(tmp_path: Path) -> None:
    run(tmp_path, [labelled(5), labelled(2)], layout=ORDERED)
    assert labels(tmp_path) == ["r2", "r5"]
    run(tmp_path, [labelled(3)], layout=ORDERED)
    assert labels(tmp_path) == ["r2", "r3", "r5"]


def test_a_late_row_is_not_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """The row's place is passed already, and the kill comes before a commit could store that the file is old."""
    run(tmp_path, [labelled(0), labelled(2)], layout=ORDERED)
    run(tmp_path, [labelled(1)], layout=ORDERED, finish=False)
    run(tmp_path, layout=ORDERED)
    assert labels(tmp_path) == ["r0", "r1", "r2"]


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


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────────────────────


def parquet_of(path: Path) -> Any:
    return pyarrow.parquet.read_table(path / "labels.parquet")


def test_parquet_has_types(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"n": 1, "x": 1, "ok": True, "text": "a\ud800", "tags": ["a"], "mixed": 1, "none": None, "big": 2**62},
        {"n": 2, "x": 0.5, "ok": None, "text": "b", "tags": None, "mixed": "z", "none": None, "big": 0.5},
    ]
    batch = [labelled(number, fields=fields) for number, fields in enumerate(rows)]
    run(tmp_path, batch, [unlabelled(9)], layout=Layout(labels=("label",), formats=("parquet",)))
    table = parquet_of(tmp_path)
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "bool"] + ["string"] * 6
    assert table.to_pylist() == [
        {
            "n": 1, "x": 1.0, "ok": True, "text": "a\ufffd", "tags": '["a"]', "mixed": "1",
            "none": None, "big": str(2**62), "label": "positive",
        },
        {
            "n": 2, "x": 0.5, "ok": None, "text": "b", "tags": None, "mixed": "z",
            "none": None, "big": "0.5", "label": "positive",
        },
    ]


def test_parquet_is_made_anew_by_each_session(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), formats=("csv", "parquet"), order="input")
    run(tmp_path, [labelled(2), labelled(0)], layout=layout, all_done=False)
    assert parquet_of(tmp_path).column("id").to_pylist() == ["r0"]
    run(tmp_path, [labelled(1)], layout=layout)
    assert parquet_of(tmp_path).column("id").to_pylist() == ["r0", "r1", "r2"]
    assert not list(tmp_path.glob("*.part"))


# ── a disk that fails ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", ["completion", "input"])
def test_what_a_full_disk_tore_is_written_when_there_is_room(tmp_path: Path, order: str) -> None:
    resource = pytest.importorskip("resource")
    batches = [[labelled(number, fields={"text": "x" * 3000}) for number in (at, at + 1)] for at in (0, 2, 4)]

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, Layout(labels=("label",), order=order))
            await files.write(batches[0], await ledger.commit(batches[0], files.marks()))
            seqs = await ledger.commit(batches[1], files.marks())
            with limited(resource, 8000), pytest.raises(StoreError, match=r"labels\.csv: cannot write: File too large"):
                await files.write(batches[1], seqs)
            assert (tmp_path / "labels.csv").stat().st_size == 8000
            await files.write(batches[2], await ledger.commit(batches[2], files.marks()))
            await files.finish(all_done=True)

    asyncio.run(main())
    assert labels(tmp_path, "text") == ["x" * 3000] * 6


class limited:  # noqa: N801
    """No file may become longer than this: the nearest thing to a full disk."""

    def __init__(self, resource: Any, size_bytes: int) -> None:
        self._resource, self._size_bytes = resource, size_bytes

    def __enter__(self) -> None:
        self._before = self._resource.getrlimit(self._resource.RLIMIT_FSIZE)
        self._resource.setrlimit(self._resource.RLIMIT_FSIZE, (self._size_bytes, self._before[1]))

    def __exit__(self, *_: object) -> None:
        self._resource.setrlimit(self._resource.RLIMIT_FSIZE, self._before)


def test_a_folder_where_a_file_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").mkdir()
    (tmp_path / "labels.csv" / "x").touch()
    with pytest.raises(StoreError, match=r"labels\.csv: cannot write"):
        run(tmp_path, [labelled(0)])
    assert os.listdir(tmp_path / "labels.csv") == ["x"]
