"""What a run has written is no input by accident, and folders' names may give columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from reader_files import read_files

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, resolve_sources


def give(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,text\na,b\n" if name.endswith("csv") else "{}")


def run_folder(folder: Path) -> None:
    give(folder, "manifest.json", "ledger.db", "labels.csv", "failed.csv")


def names(path: str | list[str], base: Path, own: str | None = None, **more: str) -> list[str]:
    return [source.name for source in resolve_sources(path, base=base, run_dir=own and base / own, **more)]


def test_the_runs_own_files_are_in_no_glob(tmp_path: Path) -> None:
    give(tmp_path, "data/r.csv", "data/out/labels.csv", "data/out/part/x.csv", "data/outer/s.csv")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "data" / "out" / "labels.csv")
    (tmp_path / "data" / "through").symlink_to(tmp_path / "data" / "out")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data" / "out")

    assert "data/out/labels.csv" in names("data/o*/*.csv", tmp_path)
    for own in ("data/out", "elsewhere", "data/../data/out"):
        assert names("data/**/*.csv", tmp_path, own) == ["data/outer/s.csv", "data/r.csv"]
        assert names("data/through/*.csv", tmp_path) == ["data/through/labels.csv"]
        with pytest.raises(InputError, match="matches only files in output"):
            names("data/through/*.csv", tmp_path, own)
        for literal in ("data/out/labels.csv", "data/link.csv", "data/through/labels.csv"):
            with pytest.raises(InputError, match=r"is in output\.dir, this run's own folder; set output\.dir"):
                names(literal, tmp_path, own)


def test_the_folder_walk_leaves_the_run_out_too(tmp_path: Path) -> None:
    give(tmp_path, "data/a.txt", "data/out/labels.csv")
    assert [record.key for record in read_files("data", tmp_path, format="files", own=tmp_path / "data" / "out")] == [
        "data/a.txt"
    ]


def test_another_runs_files_are_read_where_they_are_named(tmp_path: Path) -> None:
    give(tmp_path, "data/r.csv")
    run_folder(tmp_path / "data" / "run-1")
    run_folder(tmp_path / "data" / "run-2")

    progress = ReadProgress()
    assert len(read_files("data/**/*.csv", tmp_path, progress=progress)) == 1
    assert progress.format_notes() == [
        "data/r.csv: 4 files that other runs have written are left out of the glob (data/run-1/failed.csv ...)"
    ]
    assert names("data/run-*/labels.csv", tmp_path) == ["data/run-1/labels.csv", "data/run-2/labels.csv"]
    assert names("data/run-1/labels.csv", tmp_path) == ["data/run-1/labels.csv"]
    with pytest.raises(InputError, match="name the file to read another run's"):
        names("data/run-1/*.csv", tmp_path)


def test_partitions_are_columns_behind_the_files_own(tmp_path: Path) -> None:
    give(tmp_path, "ds/lang=de/day=2024-01-02/a.csv", "ds/lang=__HIVE_DEFAULT_PARTITION__/day=a%2Fb%3D/b.csv")
    progress = ReadProgress()
    records = read_files("ds/**/*.csv", tmp_path, progress=progress)

    assert [list(record.fields.items()) for record in records] == [
        [("id", "a"), ("text", "b"), ("lang", None), ("day", "a/b=")],
        [("id", "a"), ("text", "b"), ("lang", "de"), ("day", "2024-01-02")],
    ]
    assert records[0].digest != records[1].digest
    assert progress.format_notes() == [
        f"{records[0].source}, {records[1].source}: its folders' names give the columns lang, day"
    ]
    assert read_files("ds/**/*.csv", tmp_path, key="day")[1].key == "2024-01-02"


def test_a_column_of_the_file_stays_as_it_is_and_this_is_told(tmp_path: Path) -> None:
    give(tmp_path, "text=x/a.csv")
    progress = ReadProgress()
    [record] = read_files("text=x/a.csv", tmp_path, progress=progress)
    assert record.fields == {"id": "a", "text": "b"}
    assert (
        "text=x/a.csv: the column 'text' is the file's own, not what its folder's name says" in progress.format_notes()
    )
