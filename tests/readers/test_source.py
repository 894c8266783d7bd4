from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.readers import Source, resolve_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["part-10.jsonl", "part-2.jsonl", "part-1.jsonl", "sub/part-3.jsonl", "sub/deep/a.csv", "b.csv.GZ"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "data" / "folder.jsonl").mkdir()
    (tmp_path / "data" / ".hidden.jsonl").write_bytes(b"")
    return tmp_path


def names(path: str | list[str], base: Path) -> list[str]:
    return [source.name for source in resolve_sources(path, base=base)]


def refusal(path: str | list[str], base: Path, format_name: str = "auto") -> str:
    with pytest.raises(InputError) as caught:
        resolve_sources(path, format=format_name, base=base)
    return str(caught.value)


def test_a_glob_is_read_in_natural_order(folder: Path) -> None:
    assert names("data/*.jsonl", folder) == ["data/part-1.jsonl", "data/part-2.jsonl", "data/part-10.jsonl"]
    assert names("data/**/*.jsonl", folder) == [
        "data/part-1.jsonl",
        "data/part-2.jsonl",
        "data/part-10.jsonl",
        "data/sub/part-3.jsonl",
    ]
    assert names("data/sub/**/*", folder) == ["data/sub/deep/a.csv", "data/sub/part-3.jsonl"]


def test_a_list_is_read_in_its_order(folder: Path) -> None:
    assert names(["data/part-2.jsonl", "data/sub/**/*.csv", "./data/part-1.jsonl"], folder) == [
        "data/part-2.jsonl",
        "data/sub/deep/a.csv",
        "data/part-1.jsonl",
    ]


def test_an_absolute_path_or_glob_keeps_its_form(folder: Path) -> None:
    full = f"{folder.as_posix()}/data/part-1.jsonl"
    assert names(full, Path("elsewhere")) == [full]
    assert names(f"{folder.as_posix()}/data/part-1?.jsonl", Path("elsewhere")) == [full.replace("1.", "10.")]


def test_paths_start_at_the_base_and_may_go_up(folder: Path) -> None:
    [source] = resolve_sources("../part-1.jsonl", base=folder / "data" / "sub")
    assert source == Source("../part-1.jsonl", folder / "data/sub" / "../part-1.jsonl", "jsonl", 0)
    assert names("../part-1*.jsonl", folder / "data" / "sub") == ["../part-1.jsonl", "../part-10.jsonl"]


def test_home_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/data/part-1.jsonl", Path()) == [f"{folder.as_posix()}/data/part-1.jsonl"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_bytes(b"")
    (tmp_path / "a1.csv").write_bytes(b"")
    assert names("a[1].csv", tmp_path) == ["a[1].csv"]


def test_the_format_is_told_by_the_ending(folder: Path) -> None:
    assert [source.format for source in resolve_sources(["data/b.csv.GZ", "-"], base=folder)] == ["csv", "auto"]
    [source] = resolve_sources("data/b.csv.GZ", format="tsv", base=folder)
    assert source.format == "tsv"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.log", b'{"a": 1}\n{"a": 2}', "jsonl"),
        ("a.data", b'\xef\xbb\xbf\n {"a": 1}\n', "jsonl"),
        ("a.gz", gzip.compress(b'{"a": 1}\n', mtime=0), "jsonl"),
        ("noname", b'{"a": "' + b"x" * 100_000 + b'"}\n', "jsonl"),
        ("noname", b"PAR1....", "parquet"),
        ("a.data", b'{\n  "a": 1\n}\n', "json"),
        ("a.data", b'[{"a": 1}]', "json"),
        ("a.log", b"some,text\n", None),
        ("a.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:9] + b"x" * 100, None),
        ("empty", b"", None),
    ],
)
def test_an_unknown_ending_asks_the_content(tmp_path: Path, name: str, content: bytes, found: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    if found:
        assert resolve_sources(name, base=tmp_path) == [Source(name, tmp_path / name, found, len(content))]
    else:
        message = refusal(name, tmp_path)
        assert f"the format of '{name}' cannot be determined" in message
        assert "set input.format" in message


def test_what_cannot_be_read_is_refused_by_name(folder: Path) -> None:
    assert "'data/none.csv' cannot be read: No such file" in refusal("data/none.csv", folder)
    assert "no file matches 'data/*.xls'" in refusal("data/*.xls", folder)
    assert "no file matches 'data/folder*'" in refusal("data/folder*", folder)
    assert "'data/sub' is a folder; name its files, as in 'data/sub/*.jsonl'" in refusal("data/sub/", folder)
    assert "names no file" in refusal([], folder)
    assert "names no file" in refusal(["data/part-1.jsonl", ""], folder)
    assert "'xml' is not known; it is one of auto, jsonl, json, csv" in refusal("data/part-1.jsonl", folder, "xml")


def test_a_file_given_twice_is_refused(folder: Path) -> None:
    message = refusal(["data/*.jsonl", "data/sub/../part-1.jsonl"], folder)
    assert "'data/sub/../part-1.jsonl' is given twice (also as 'data/part-1.jsonl'); name it once" in message
    assert "'data/part-1.jsonl' is given twice" in refusal(["data/part-1.jsonl", "data/part-1.jsonl"], folder)
    assert "'stdin' is given twice" in refusal(["-", "-"], folder)
    (folder / "link.jsonl").symlink_to(folder / "data/part-1.jsonl")
    assert "'link.jsonl' is given twice (also as 'data/part-1.jsonl')" in refusal(
        ["data/part-1.jsonl", "link.jsonl"], folder
    )


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "stdin").write_bytes(b"{}\n")
    assert "'stdin' is given twice" in refusal(["-", "stdin"], tmp_path)


def test_parquet_must_be_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    assert "'a.parquet.gz': Parquet is read from a plain file; unpack it first" in refusal("a.parquet.gz", tmp_path)
    assert "Parquet cannot be read from stdin" in refusal("-", tmp_path, "parquet")


def test_a_pipe_has_no_size_and_is_not_looked_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    [source] = resolve_sources("pipe", format="csv", base=tmp_path)
    assert source.size_bytes is None
    before = source.stamp()
    os.utime(tmp_path / "pipe", (1, 1))
    assert source.stamp() == before, "its times change as it is read"
    assert resolve_sources("pipe", base=tmp_path)[0].format == "auto"  # told by what comes, as for stdin
    os.mkfifo(tmp_path / "pipe.xyz")
    assert "set input.format" in refusal("pipe.xyz", tmp_path)
