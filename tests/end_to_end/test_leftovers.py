"""A run folder in which something is missing, shared, or a link: nothing of anybody is overwritten or followed."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import Settings, run, verify
from pipeline.errors import RunInUseError, SetupError
from pipeline.runner import describe_existing_run, move_aside
from pipeline.store import Ledger, RunDir

ROWS = "".join(f'{{"id": "r{number}", "text": "t{number}"}}\n' for number in range(4))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text(ROWS)

    def make(output_dir: str = "run", **tables: Any) -> Settings:
        return Settings(
            input={"path": "in.jsonl", "key": "id"},
            task={"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}},
            model={"name": "m", "base_url": "rehearsal"},
            rehearsal={"latency_ms": 0},
            output={"dir": output_dir},
            **tables,
        )

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(("lock", "ledger"))}


async def _new_ledger(path: Path) -> None:
    await (await Ledger.open(path)).close()


@pytest.mark.parametrize("how", ["gone", "empty", "another"])
def test_a_run_without_its_ledger_is_refused_and_stays_as_it_is(how: str, settings: Callable[..., Settings]) -> None:
    """It began anew: all was paid for again, and the rows of the old run were overwritten."""
    assert run(settings()).exit_code == 0
    folder = Path("run")
    before = files(folder)
    for part in folder.glob("ledger.db*"):
        part.unlink()
    if how == "empty":
        (folder / "ledger.db").touch()
    if how == "another":
        asyncio.run(_new_ledger(folder / "ledger.db"))
    with pytest.raises(SetupError, match=r"ledger.*--fresh"):
        run(settings())
    assert files(folder) == before
    aside = move_aside(settings())
    assert files(aside) == before
    assert run(settings()).labelled == 4


def test_a_first_session_killed_while_it_built_its_files_is_resumed(settings: Callable[..., Settings]) -> None:
    assert run(settings()).labelled == 4
    for file in [file for file in Path("run").iterdir() if file.name != "manifest.json"]:
        file.unlink()
    asyncio.run(_new_ledger(Path("run/ledger.db")))
    Path("run/failed.csv.part").write_text("key,source,line,status,code,message,attempts\n")
    assert run(settings()).labelled == 4


@pytest.mark.parametrize("name", ["labels.csv", "failed.csv", "run.log", "summary.json"])
def test_a_file_of_the_users_own_is_not_overwritten(name: str, settings: Callable[..., Settings]) -> None:
    Path("data").mkdir()
    Path("data", name).write_text("mine,own\n1,2\n")
    with pytest.raises(SetupError, match=f"data: {name} would be overwritten"):
        run(settings("data"))
    assert Path("data", name).read_text() == "mine,own\n1,2\n"


@pytest.mark.parametrize("where", [".", "shared"])
def test_starting_over_in_a_shared_folder_leaves_the_users_files_where_they_are(
    where: str, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole folder was renamed, and with it what else lay there."""
    Path("here").mkdir()
    Path("in.jsonl").rename("outside.jsonl")
    monkeypatch.chdir("here")
    Path("in.jsonl").symlink_to("../outside.jsonl")
    assert run(settings(where)).labelled == 4
    Path(where, "mine.txt").write_text("mine")
    # The command's look at the ledger leaves a journal there, which is gone once it is folded into the ledger.
    assert "holds 4 records" in asyncio.run(describe_existing_run(settings(where)))
    aside = move_aside(settings(where))
    assert (aside / "ledger.db").stat().st_size > 0
    assert (aside / "labels.csv").read_text().count("\n") == 5
    assert Path(where, "mine.txt").read_text() == "mine"
    assert run(settings(where)).labelled == 4


def test_the_lock_is_kept_while_the_run_is_moved(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between lock and rename another process could begin in the folder, and was moved aside with it."""
    run(settings())
    rename, seen = Path.rename, []

    def try_to_begin(self: Path, target: Path) -> Path:
        def begin() -> None:
            try:
                RunDir(Path("run")).open_for_writing().close()
            except RunInUseError as error:
                seen.append(error)

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", try_to_begin)
    aside = move_aside(settings())
    assert len(seen) == 1
    assert not (aside / "lock.owner").exists()
    RunDir(aside).open_for_writing().close()


@pytest.mark.parametrize("name", ["labels.csv", "run.log", "ledger.db", "manifest.json.part", "control.answers.jsonl"])
def test_no_file_of_the_folder_is_followed_as_a_link(name: str, settings: Callable[..., Settings]) -> None:
    """Who could put a link into the folder had a file outside of it overwritten."""
    Path("run").mkdir()
    Path("target").write_text("precious")
    Path("run", name).symlink_to(Path("target").absolute())
    with pytest.raises(SetupError, match=f"{name}: is a link"):
        run(settings())
    assert Path("target").read_text() == "precious"


def test_a_ledger_that_is_a_link_is_not_verified(settings: Callable[..., Settings]) -> None:
    """It said that all is well of what lies anywhere."""
    run(settings())
    Path("run", "ledger.db").rename("elsewhere.db")
    Path("run", "ledger.db").symlink_to(Path("elsewhere.db").absolute())
    with pytest.raises(SetupError, match=r"ledger\.db: is a link"):
        verify("run")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_new_run_folder_is_for_its_owner_only(settings: Callable[..., Settings]) -> None:
    run(settings("runs/one"))
    assert stat.S_IMODE(Path("runs/one").stat().st_mode) == 0o700
    Path("two").mkdir(mode=0o750)
    run(settings("two"))
    assert stat.S_IMODE(Path("two").stat().st_mode) == 0o750, "a folder that the user made stays as it is"
