"""The run folder: one process at a time, files that are whole, differences that a person can read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import RunInUseError, SetupError, StoreError
from pipeline.store import Change, RunDir, diff, rundir

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from pipeline.store import RunDir
lock = RunDir(Path(sys.argv[1])).open_for_writing()
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_name_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    first = holder(folder)
    try:
        for _ in range(2):
            with pytest.raises(RunInUseError) as caught:
                RunDir(folder).open_for_writing()
            assert str(folder) in str(caught.value)
            assert f"process {first.pid}, started at 20" in str(caught.value)
    finally:
        first.kill()
        first.communicate()
    # A killed process leaves its name behind, but not its lock.
    with RunDir(folder).open_for_writing():
        assert str(os.getpid()) in (folder / "lock.owner").read_text()
    assert not (folder / "lock.owner").exists()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    lock = RunDir(tmp_path).open_for_writing()
    with pytest.raises(RunInUseError):
        RunDir(tmp_path).open_for_writing()
    lock.close()
    lock.close()
    RunDir(tmp_path).open_for_writing().close()


def test_whether_it_runs_is_asked_of_its_process_and_on_windows_of_its_lock(tmp_path: Path) -> None:
    """There a signal 0 to the process is a Ctrl-C: looking at a run would end it."""
    run_dir = RunDir(tmp_path)
    assert not run_dir.is_running()
    assert not rundir._is_locked(tmp_path)
    with run_dir.open_for_writing():
        assert run_dir.is_running()
        assert rundir._is_locked(tmp_path)
    assert not rundir._is_locked(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"file/run: the run folder cannot be written"):
        RunDir(tmp_path / "file" / "run").open_for_writing()


def test_names(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    paths = [run_dir.labels(), run_dir.labels("jsonl"), run_dir.failed, run_dir.ledger, run_dir.log]
    assert [path.name for path in paths] == ["labels.csv", "labels.jsonl", "failed.csv", "ledger.db", "run.log"]


def test_manifest_and_summary_come_back(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_manifest() is run_dir.read_summary() is None
    odd = {"fingerprint": {"prompt": "이"}, "sources": ["a\udce9.csv"], "seed": 2**70}
    run_dir.write_manifest(odd)
    assert run_dir.read_manifest() == odd
    run_dir.write_manifest({"fingerprint": {"prompt": "이 제품"}})
    run_dir.write_summary({"labelled": 3})
    assert run_dir.read_manifest() == {"fingerprint": {"prompt": "이 제품"}}
    assert run_dir.read_summary() == {"labelled": 3}
    run_dir.clear_summary()
    run_dir.clear_summary()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write_manifest({"n": 1})

    def torn(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir.os, "fsync", torn)
    with pytest.raises(StoreError, match=r"manifest\.json: cannot write: No space left"):
        run_dir.write_manifest({"n": 2})
    assert run_dir.read_manifest() == {"n": 1}


@pytest.mark.parametrize("content", [b'{"a": ', b"[1]", b"\xff\xfe"])
def test_a_broken_manifest_is_told_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(SetupError, match=r"manifest\.json: .*--fresh"):
        RunDir(tmp_path).read_manifest()


def test_a_difference_names_the_parts() -> None:
    old = {"model": "a", "parameters": {"temperature": 0, "seed": 1}, "prompt": "x", "gone": [1]}
    new = {"model": "b", "parameters": {"temperature": 1, "seed": 1}, "prompt": "x", "added": {}}
    changes = diff(old, new)
    assert changes == [
        Change("model", "a", "b"),
        Change("parameters.temperature", 0, 1),
        Change("gone", [1], None),
        Change("added", None, {}),
    ]
    assert [line for change in changes for line in change.lines()] == [
        'model: "a" -> "b"',
        "parameters.temperature: 0 -> 1",
        "gone: [1] -> (not set)",
        "added: (not set) -> {}",
    ]
    assert diff(new, new) == []


def test_a_long_text_is_shown_as_lines() -> None:
    (change,) = diff({"prompt": "Label this.\nBe kind.\n{{ text }}"}, {"prompt": "Label this.\nBe strict.\n{{ text }}"})
    assert list(change.lines()) == [
        "prompt:",
        "    --- before",
        "    +++ now",
        "    @@ -1,3 +1,3 @@",
        "     Label this.",
        "    -Be kind.",
        "    +Be strict.",
        "     {{ text }}",
    ]
    (change,) = diff({"schema": {"enum": ["a" * 60, "b"]}}, {"schema": {"enum": ["a" * 60, "c" * 30]}})
    assert '    -  "b"' in list(change.lines())
