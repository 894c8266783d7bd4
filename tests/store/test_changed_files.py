"""Whose a file of rows is: what a person has done to one is kept, and the run's own is made anew beside it."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_samples import labelled, match
from store_sessions import BATCHES, LAYOUT, OUTCOMES, run, session

from pipeline.records import Outcome
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks, move_changed_files, prove_files, rows_of, writes
from pipeline.store.projection import RowMatch, match_rows, row_formats

ALL = Layout(labels=("label",), formats=("csv", "jsonl", "parquet"))
NAMES = ("labels.csv", "labels.jsonl", "labels.parquet", "failed.csv")


def contents(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in NAMES if (path / name).exists()}


def aside(path: Path) -> list[Path]:
    return sorted(path.glob("*.changed-*"))


def claimed(path: Path) -> list[str]:
    async def main() -> list[str]:
        async with await Ledger.open(path / "ledger.db") as ledger:
            return [one.name for one in await move_changed_files(RunDir(path), ledger)]

    return asyncio.run(main())


def proof_of(path: Path, name: str) -> str:
    async def main() -> str:
        async with await Ledger.open(path / "ledger.db") as ledger:
            return next(one.detail for one in await prove_files(RunDir(path), ledger) if one.name == name)

    return asyncio.run(main())


def saved_again(data: bytes) -> bytes:
    text = io.StringIO()
    rows = csv.reader(io.StringIO(data.decode(), newline=""))
    csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode("utf-8-sig")


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "longer": lambda data: data[:-3] + b" and much more" + data[-3:],
    "shorter": lambda data: data[:-4] + data[-1:],
    "of the same length": lambda data: data[: len(data) // 2] + b"#" + data[len(data) // 2 + 1 :],
    "saved again": saved_again,
    "appended to": lambda data: data + b"mine,mine,mine\n",
    "last row deleted": lambda data: data[: data.rindex(b"\n", 0, -1) + 1],
    "first row deleted": lambda data: data[data.index(b"\n") + 1 :],
    "another": lambda _: b"something else\n",
    "reversed ends of lines": lambda data: data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("order", ["completion", "input"])
def test_what_a_person_has_changed_is_moved_aside_as_it_is(tmp_path: Path, order: str) -> None:
    layout = Layout(labels=("label",), formats=("csv", "jsonl"), order=order)
    (tmp_path / "start").mkdir()
    run(tmp_path / "start", *BATCHES, layout=layout)
    wanted = contents(tmp_path / "start")
    for edit in EDITS.values():
        for name in wanted:
            path = tmp_path / "run"
            shutil.copytree(tmp_path / "start", path)
            changed = edit(wanted[name]) if edit is not EDITS["saved again"] or name.endswith("csv") else b"x"
            (path / name).write_bytes(changed)
            run(path, layout=layout)
            assert contents(path) == wanted
            (moved,) = aside(path)
            assert moved.name.startswith(name.partition(".")[0])
            assert moved.suffix == Path(name).suffix, "a spreadsheet opens it as before"
            assert moved.read_bytes() == changed
            shutil.rmtree(path)


def test_a_second_edit_never_overwrites_the_first(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES)
    for number in range(3):
        (tmp_path / "labels.csv").write_text(f"mine {number}")
        run(tmp_path)
    assert sorted(path.read_text() for path in aside(tmp_path)) == ["mine 0", "mine 1", "mine 2"]


def test_a_parquet_file_of_a_person_is_kept_too(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES, layout=ALL)
    wanted = contents(tmp_path)
    run(tmp_path, layout=ALL)
    assert not aside(tmp_path)
    assert contents(tmp_path) == wanted
    (tmp_path / "labels.parquet").write_bytes(wanted["labels.parquet"][:-9] + b"my change")
    run(tmp_path, layout=ALL)
    assert [path.suffix for path in aside(tmp_path)] == [".parquet"]
    assert contents(tmp_path) == wanted


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
@pytest.mark.parametrize("order", ["completion", "input"])
def test_an_emptied_file_is_made_again_and_nothing_is_moved(tmp_path: Path, name: str, order: Any) -> None:
    """It was moved aside as one that somebody had changed while the run was at work."""
    layout = replace(ALL, order=order)
    run(tmp_path, *BATCHES, layout=layout)
    wanted = contents(tmp_path)
    (tmp_path / name).write_bytes(b"")
    assert proof_of(tmp_path, name).startswith(f"is empty, and {len(wanted[name])} bytes of it were written. Give the")
    run(tmp_path, layout=layout)
    assert not aside(tmp_path)
    assert contents(tmp_path).keys() == wanted.keys()
    assert proof_of(tmp_path, name).startswith("10 rows")


def test_a_damaged_parquet_file_says_what_the_next_run_does(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES, layout=ALL)
    path = tmp_path / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    told = proof_of(tmp_path, "labels.parquet")
    size = path.stat().st_size
    assert told.startswith(f"cannot be read, it has {size} bytes, and {size + 20} were written: ")
    assert "it moves this file aside, as it is" in told


def test_a_link_in_the_place_of_a_file_is_moved_and_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    run(folder, *BATCHES)
    wanted = contents(folder)
    (tmp_path / "theirs.csv").write_bytes(wanted["labels.csv"])
    (folder / "labels.csv").unlink()
    (folder / "labels.csv").symlink_to(tmp_path / "theirs.csv")
    run(folder, [labelled(20)])
    assert (tmp_path / "theirs.csv").read_bytes() == wanted["labels.csv"]
    assert not (folder / "labels.csv").is_symlink()
    assert [path.is_symlink() for path in aside(folder)] == [True]


@pytest.mark.usefixtures("small_steps")
def test_a_kill_at_any_moment_is_no_change_of_a_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each moment of a run, also that between the rows and their mark, as a kill leaves it: the next finds its own."""
    moments: list[Path] = []

    def kept(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            result = work(*args, **more)
            moments.append(tmp_path / f"moment {len(moments)}")
            shutil.copytree(tmp_path / "run", moments[-1])
            return result

        return call

    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kept(os.fsync))
        patch.setattr("pipeline.store.ledger.writes.commit", kept(writes.commit))
        run(tmp_path / "run", *BATCHES, layout=ALL)
    assert len(moments) > 20
    wanted = {
        name: sorted(data.splitlines()) for name, data in contents(tmp_path / "run").items() if "parq" not in name
    }
    for path in moments:
        run(path, *_missing(path), layout=ALL)
        assert wanted == {
            name: sorted(data.splitlines()) for name, data in contents(path).items() if "parq" not in name
        }
        assert not aside(path), path.name


def _missing(path: Path) -> list[list[Outcome]]:
    async def main() -> list[list[Outcome]]:
        async with await Ledger.open(path / "ledger.db") as ledger:
            known = await ledger.known([one.record.key for one in OUTCOMES])
        return [[one for one in OUTCOMES if one.record.key not in known]]

    return [batch for batch in asyncio.run(main()) if batch]


def test_rows_that_were_archived_since_are_no_change_of_a_persons(tmp_path: Path) -> None:
    """Killed after `retry` had set outcomes aside, and before the files were made anew."""
    run(tmp_path, *BATCHES)

    async def archive_first(ledger: Ledger) -> None:
        await ledger.archive(Selection(keys=["r0"]), "retry")
        await match(ledger, [one.record for one in OUTCOMES[3:]])

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await archive_first(ledger)

    asyncio.run(main())
    assert claimed(tmp_path) == []
    run(tmp_path)
    assert not aside(tmp_path)


def test_a_run_of_an_older_version_knows_its_files_by_their_bytes(tmp_path: Path) -> None:
    """It has noted no digest: what is byte for byte the ledger's is the run's, and nothing else."""
    for edited in (False, True):
        path = tmp_path / str(edited)
        path.mkdir()
        run(path, *BATCHES[:-1], finish=False)
        with closing(sqlite3.connect(path / "ledger.db")) as connection:
            connection.execute("UPDATE sinks SET digest = NULL")
            connection.commit()
        if edited:
            data = (path / "labels.csv").read_bytes()
            (path / "labels.csv").write_bytes(data.replace(b"text 2", b"text 3"))
        run(path, BATCHES[-1])
        assert len(aside(path)) == edited


@pytest.mark.parametrize("how", ["beside", *EDITS])
def test_an_edit_of_a_file_that_is_made_at_the_end_is_kept_as_it_is(tmp_path: Path, how: str) -> None:
    path, layout = tmp_path / "labels.csv", replace(LAYOUT, order="input")
    run(tmp_path, *BATCHES[:2], layout=layout)

    async def main() -> bytes:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            sinks = await Sinks.start(RunDir(tmp_path), ledger, layout)
            edited = EDITS.get(how, lambda _: b"mine")(path.read_bytes())
            path.write_bytes(edited)
            for batch in BATCHES[2:]:
                await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
            await sinks.finish()
            assert [one.name for one in sinks.moved] == ["labels.csv"]
            return edited

    other = tmp_path / "other"
    other.mkdir()
    run(other, *BATCHES, layout=layout)
    edited = asyncio.run(main())
    assert contents(tmp_path) == contents(other)
    (kept,) = aside(tmp_path)
    assert kept.read_bytes() == edited


@pytest.mark.parametrize("when", [1, len(BATCHES)])
@pytest.mark.parametrize("how", ["beside", *EDITS])
def test_an_edit_while_the_run_is_at_work_is_kept_as_it_is(tmp_path: Path, how: str, when: int) -> None:
    """An editor saves a file beside and renames it, or writes into it: no row of ours is written into that."""
    path, layout = tmp_path / "labels.csv", LAYOUT

    def edit() -> bytes:
        edited = EDITS.get(how, lambda _: b"mine")(path.read_bytes())
        if how == "beside":
            path.unlink()
        path.write_bytes(edited)
        return edited

    async def main() -> tuple[list[str], bytes]:
        edited = b""
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            sinks = await Sinks.start(RunDir(tmp_path), ledger, layout)
            for number, batch in enumerate(BATCHES, 1):
                await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
                edited = edit() if number == when else edited
            await sinks.finish()
            return [one.name for one in sinks.moved], edited

    other = tmp_path / "other"
    other.mkdir()
    run(other, *BATCHES, layout=layout)
    moved, edited = asyncio.run(main())
    assert moved == ["labels.csv"]
    assert contents(tmp_path) == contents(other)
    (kept,) = aside(tmp_path)
    # What has the same length is found at the end: the rows that came after stand behind it.
    assert kept.read_bytes().startswith(edited)


def test_it_costs_one_look_at_a_file_that_nobody_touched(tmp_path: Path) -> None:
    run(tmp_path, *BATCHES, layout=ALL)
    before = contents(tmp_path)
    assert claimed(tmp_path) == []
    asyncio.run(session(tmp_path, layout=ALL, finish=False))
    assert contents(tmp_path) == before


def test_it_is_known_where_a_file_parts_from_the_ledger(tmp_path: Path) -> None:
    """Rows are read in blocks, and those before a torn or a changed one agree all the same."""
    run(tmp_path, OUTCOMES, layout=LAYOUT)
    path = tmp_path / "labels.csv"
    whole = path.read_bytes()
    row_format = next(one for one in row_formats(LAYOUT.grown(OUTCOMES)) if one.name == path.name)
    labelled = [outcome for outcome in OUTCOMES if row_format.block([outcome])]
    ends = [len(row_format.head() + row_format.block(labelled[:count])) for count in range(len(labelled) + 1)]
    assert ends[-1] == len(whole)

    async def compared() -> RowMatch:
        async with await Ledger.open(tmp_path / "ledger.db", read_only=True) as ledger:
            with path.open("rb") as file:
                return await match_rows(file, row_format, rows_of(ledger, "completion"), RowMatch())

    for count, end in enumerate(ends[:-1]):
        for cut in (end, end + 3):
            path.write_bytes(whole[:cut])
            found = asyncio.run(compared())
            assert (found.size_bytes, found.rows, found.actual) == (end, count, whole[end:cut])
            assert found.expected == whole[end:]
