"""The files follow the ledger through every crash."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from store_samples import labelled, read_csv, unlabelled
from store_sessions import BATCHES, LAYOUT, OUTCOMES, labels, run, session

from pipeline.errors import StoreError
from pipeline.records import Status
from pipeline.store import Layout, Ledger, RunDir, Sinks


@pytest.mark.usefixtures("small_steps")
def test_a_file_cut_at_any_byte_is_mended(tmp_path: Path) -> None:
    """A crash leaves a part of what was written after the last mark; a careless hand leaves anything."""
    layout = Layout(labels=("label",), formats=("csv", "jsonl"))
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
            checkpoint = (await ledger.checkpoints())["labels.csv"]
        assert 0 < checkpoint.bytes < (tmp_path / "labels.csv").stat().st_size
        assert (tmp_path / "labels.csv").read_bytes()[: checkpoint.bytes].endswith(b"\n")

    asyncio.run(main())


ORDERED = Layout(labels=("label",), formats=("csv", "jsonl", "parquet"), order="input")
NAMES = ("labels.csv", "labels.jsonl", "labels.parquet", "failed.csv")


@pytest.mark.parametrize("name", NAMES)
def test_what_keeps_a_file_from_being_made_at_the_end_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run(tmp_path, *BATCHES[:2], layout=ORDERED)
    before = {file: (tmp_path / file).read_bytes() for file in NAMES}
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == name:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(StoreError, match=rf"{name}: cannot write: No space left on device"):
            run(tmp_path, *BATCHES[2:], layout=ORDERED)
    assert (tmp_path / name).read_bytes() == before[name]
    run(tmp_path, layout=ORDERED)
    _whole_and_ours(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_between_a_file_made_at_the_end_and_its_mark_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run(tmp_path, *BATCHES[:2], layout=ORDERED)
    note = Ledger.save_checkpoints

    async def killed(self: Ledger, checkpoints: Any) -> None:
        if name in checkpoints and not checkpoints[name].is_stale:
            raise RuntimeError("killed")
        await note(self, checkpoints)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "save_checkpoints", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path, *BATCHES[2:], layout=ORDERED)
    run(tmp_path, layout=ORDERED)
    _whole_and_ours(tmp_path)


def _whole_and_ours(path: Path) -> None:
    """As an undisturbed run would have left them; and none was taken for somebody's."""
    other = path / "other"
    other.mkdir()
    run(other, *BATCHES, layout=ORDERED)
    assert {name: (path / name).read_bytes() for name in NAMES} == {name: (other / name).read_bytes() for name in NAMES}
    assert not list(path.glob("*.changed-*"))
    assert not list(path.glob("*.part"))


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


@pytest.mark.parametrize("more", [{}, {"score": "1"}])
def test_the_next_batch_brings_what_was_not_written(tmp_path: Path, more: dict[str, str]) -> None:
    """A cancel, or an error that was put right, may come between a commit and its rows."""
    batches = [[labelled(0)], [labelled(1, {"label": "x", **more})], [unlabelled(2), labelled(3)]]

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            for number, batch in enumerate(batches):
                seqs = await ledger.commit(batch, files.checkpoints())
                if number != 1:
                    await files.write(batch, seqs)
            await files.close()

    asyncio.run(main())
    rows = read_csv(tmp_path / "labels.csv")
    assert [row["id"] for row in rows] == ["r0", "r1", "r3"]
    assert rows[1] == {"id": "r1", "text": "text 1", "label": "x", **more}


def test_a_crash_between_commit_and_row_loses_no_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            await files.write(OUTCOMES[:3], await ledger.commit(OUTCOMES[:3], files.checkpoints()))
            await ledger.commit(OUTCOMES[3:], files.checkpoints())
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


def test_a_kill_between_a_rebuilt_file_and_its_mark_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old mark would cut the new file in the middle of a row. JSON Lines have no header to tell them apart."""
    layout = Layout(labels=("label",), formats=("jsonl",))
    run(tmp_path, *BATCHES, layout=layout)
    wanted = (tmp_path / "labels.jsonl").read_bytes()

    async def killed(_: Sinks) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Sinks, "_sync", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path, layout=Layout(labels=("label",), columns=("text",), fixed=True, formats=("jsonl",)))
    assert (tmp_path / "labels.jsonl").read_bytes() != wanted
    run(tmp_path, layout=Layout(labels=("label",), columns=("id", "text"), fixed=True, formats=("jsonl",)))
    assert (tmp_path / "labels.jsonl").read_bytes() == wanted


def test_what_a_full_disk_tore_is_written_when_there_is_room(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    batches = [[labelled(number, fields={"text": "x" * 3000}) for number in (at, at + 1)] for at in (0, 2, 4)]

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, Layout(labels=("label",)))
            await files.write(batches[0], await ledger.commit(batches[0], files.checkpoints()))
            seqs = await ledger.commit(batches[1], files.checkpoints())
            with limited(resource, 8000), pytest.raises(StoreError, match=r"labels\.csv: cannot write: File too large"):
                await files.write(batches[1], seqs)
            assert (tmp_path / "labels.csv").stat().st_size == 8000
            await files.write(batches[2], await ledger.commit(batches[2], files.checkpoints()))
            await files.finish()

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


def test_a_folder_where_a_file_should_be_is_moved_aside_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").mkdir()
    (tmp_path / "labels.csv" / "x").touch()
    run(tmp_path, [labelled(0)])
    (aside,) = tmp_path.glob("labels.changed-*.csv")
    assert (aside / "x").exists()
    assert len(read_csv(tmp_path / "labels.csv")) == 1
