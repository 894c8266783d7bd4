"""The folder of an export: only its own files are replaced, and only by whole ones."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
from export_samples import exported, labelled, made, read, texts
from typer.testing import CliRunner

from pipeline import aexport, export
from pipeline.cli import app
from pipeline.errors import SetupError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "splits.db"}


def test_files_that_are_not_ours_stay(tickets: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(SetupError, match=r"train.csv: was not written by labelpipe. Nothing was written"):
        export(tickets, data)
    assert contents(data) == {"train.csv": b"mine"}
    (data / "train.csv").rename(data / "notes.txt")
    exported(tickets, data)
    assert (data / "notes.txt").read_bytes() == b"mine"


def test_a_file_that_somebody_has_changed_stays(tickets: Path, tmp_path: Path) -> None:
    exported(tickets, tmp_path)
    with (tmp_path / "val.csv").open("a", encoding="utf-8") as file:
        file.write("my own row\n")
    before = contents(tmp_path)
    with pytest.raises(SetupError, match=r"val.csv: was changed since it was exported"):
        export(tickets, tmp_path)
    assert contents(tmp_path) == before
    # In another format its name is free; it stays, and that is said.
    done = exported(tickets, tmp_path, format="jsonl")
    assert sorted(contents(tmp_path)) == ["export.json", "test.jsonl", "train.jsonl", "val.csv", "val.jsonl"]
    assert any(note.startswith("val.csv was changed since it was exported") for note in done.notes)


def test_the_same_export_gives_the_same_bytes(tickets: Path, tmp_path: Path) -> None:
    exported(tickets, tmp_path)
    before = contents(tmp_path)
    exported(tickets, tmp_path)
    assert {**contents(tmp_path), "export.json": b""} == {**before, "export.json": b""}
    assert str(tmp_path).encode() not in before["export.json"]


def test_a_run_folder_a_file_and_a_false_url_are_no_folders(tickets: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is a run folder"):
        export(tickets, tickets)
    for name in ("labels.csv", "labels.db"):
        with pytest.raises(SetupError, match=r"expected a folder, in which train, val and test are written, or a URL"):
            export(tickets, tmp_path / name)
    for name in ("sqlite:labels.db", "me:s3cret@host/db", ""):
        with pytest.raises(SetupError, match="--to: expected a folder, or a database URL") as caught:
            export(tickets, name)
        assert "s3cret" not in str(caught.value)


def killed(run: Path, to: Path, step: int) -> int:
    """An export that is killed at the `step`th change of a name; gives its exit code."""

    def work() -> None:
        left = step

        def counted(event: str, _args: object) -> None:
            nonlocal left
            if event in ("os.rename", "os.remove", "os.mkdir"):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(counted)
        asyncio.run(aexport(run, to, seed=1))

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    return child.exitcode or 0


@pytest.mark.skipif(os.name == "nt", reason="there is no fork and no SIGKILL")
def test_a_kill_leaves_whole_files(tmp_path: Path) -> None:
    """At each step that changes a name: every file is the old or the new one, and the next export goes through."""
    some = texts(range(30))
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}) for at in range(30)])
    exported(run, tmp_path / "new", seed=1)
    new = contents(tmp_path / "new")
    data = tmp_path / "data"
    for step in (1, 3, 5):
        exported(run, data, seed=0)
        old = contents(data)
        assert killed(run, data, step) == -signal.SIGKILL
        found = contents_of_files(data)
        assert all(found[name] in (old[name], new[name]) for name in old if name != "export.json")
        exported(run, data, seed=1)
        assert {**contents(data), "export.json": b""} == {**new, "export.json": b""}


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did(tickets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(
        app, ["export", str(tickets), "--to", "data", "--split", "80/10/10", "--group", "customer"]
    )
    assert told.exit_code == 0, told.output
    assert "train" in told.output
    assert "400 records in 37 groups have the same customer or the same or a similar text" in told.output
    assert "0 texts are in more than one split" in told.output
    told = CliRunner().invoke(app, ["export", str(tickets), "--to", "data", "--json"])
    assert '"records":{"train":320,"val":40,"test":40}' in told.output
    assert len(read(tmp_path / "data")["val"]) == 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "data", "--split", "80-20"], "--split: got '80-20'; expected percentages like 80/10/10, or 90/10"),
        (
            ["--to", "data", "--near-duplicates", "no"],
            "--near-duplicates: got 'no'; expected a number like 0.8, or off",
        ),
        (["--to", "data", "--table", "t"], "--table is for a database, and --to data is none"),
        (["--to", "sqlite:///a.db", "--chat"], "--chat is for an export into a folder"),
        (["--split", "80/20"], "--split is for an export into a folder"),
    ],
)
def test_words_that_do_not_fit(words: list[str], told: str, tickets: Path) -> None:
    found = CliRunner().invoke(app, ["export", str(tickets), *words])
    assert (found.exit_code, told in found.output) == (2, True), found.output


def test_splits_that_cannot_be_read_or_kept_are_told(tmp_path: Path) -> None:
    some = texts(range(20))
    run = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}) for at in range(20)])
    (run / "splits.db").mkdir()
    done = exported(run, tmp_path / "data")
    assert done.notes[0].startswith(f"the splits are stored in {tmp_path / 'data'} only: {run / 'splits.db'}")
    (run / "splits.db").rmdir()
    (run / "splits.db").write_bytes(b"no database, but something else" * 100)
    with pytest.raises(SetupError, match=r"splits.db: cannot be read \(file is not a database\), and it says in which"):
        export(run, tmp_path / "data")
