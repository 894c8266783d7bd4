from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_files import read_files, unhurried

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, Source, resolve_sources
from pipeline.readers.files import EDGE_BYTES, MOST_TEXT_BYTES
from pipeline.readers.source import natural_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["photos/b10.jpg", "photos/b2.jpg", "photos/cats/a.jpg", "photos/note.txt", "photos/.hidden.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def files(path: str | list[str], base: Path, **choices: Any) -> list[Any]:
    return read_files(path, base, format="files", **choices)


def test_each_file_is_a_record_that_is_named_by_its_path(folder: Path) -> None:
    progress = ReadProgress()
    records = files("photos/**/*.jpg", folder, progress=progress)

    assert [record.key for record in records] == ["photos/b2.jpg", "photos/b10.jpg", "photos/cats/a.jpg"]
    assert [(record.source, record.line, record.ordinal) for record in records] == [
        ("photos/**/*.jpg", number, number - 1) for number in (1, 2, 3)
    ]
    assert records[2].fields == {
        "path": "photos/cats/a.jpg",
        "name": "a.jpg",
        "stem": "a",
        "suffix": ".jpg",
        "folder": "photos/cats",
        "size_bytes": 17,
    }
    assert progress.exact_total == 3


def test_a_folder_stands_for_all_that_is_in_it(folder: Path) -> None:
    names = ["photos/b2.jpg", "photos/b10.jpg", "photos/cats/a.jpg", "photos/note.txt"]
    assert [record.key for record in files("photos", folder)] == names
    assert [record.key for record in files("photos/", folder, limit=2)] == names[:2]
    assert [record.key for record in files(["photos/note.txt", "photos/cats"], folder)] == [names[3], names[2]]
    [record] = files("photos/note.txt", folder, key="stem")
    assert (record.key, record.fields["folder"]) == ("note", "photos")
    [record] = files("note.txt", folder / "photos")
    assert record.fields["folder"] == ""


def test_a_changed_file_has_another_digest_and_a_touched_one_has_not(folder: Path) -> None:
    def digests() -> list[int]:
        return [record.digest for record in files("photos/*.jpg", folder)]

    def stamp() -> Any:
        return resolve_sources("photos/*.jpg", format="files", base=folder)[0].stamp()

    before, stamp_before = digests(), stamp()
    os.utime(folder / "photos/b2.jpg", (1, 1))
    assert digests() == before
    assert stamp() != stamp_before
    (folder / "photos/b2.jpg").write_bytes(b"other")
    assert [one == other for one, other in zip(digests(), before, strict=True)] == [False, True]


@unhurried
@given(st.integers(0, 3 * EDGE_BYTES), st.data())
def test_both_ends_and_the_size_make_the_digest(size: int, data: st.DataObject) -> None:
    from tempfile import TemporaryDirectory

    content = bytearray(size)
    with TemporaryDirectory() as name:
        path = Path(name) / "a"

        def digest() -> int:
            path.write_bytes(content)
            return int(files("a", Path(name))[0].digest)

        first = digest()
        if size:
            at = data.draw(st.integers(0, size - 1))
            content[at] ^= 1
            assert (digest() != first) == (at < EDGE_BYTES or at >= size - EDGE_BYTES)
            content[at] ^= 1
        content.append(0)
        assert digest() != first


def test_a_file_that_vanishes_or_cannot_be_read_is_that_records_problem(folder: Path) -> None:
    source = resolve_sources("photos/*", format="files", base=folder)[0]
    (folder / "photos/b2.jpg").unlink()
    (folder / "photos/b10.jpg").unlink()
    os.mkfifo(folder / "photos/b10.jpg")  # to open it would wait for ever
    records = read_source(source)

    assert [(record.key, record.problem.message if record.problem else "") for record in records] == [
        ("photos/b2.jpg", "photos/b2.jpg: cannot be read: No such file or directory"),
        ("photos/b10.jpg", "photos/b10.jpg: cannot be read: it is not a file"),
        ("photos/note.txt", ""),
    ]


def read_source(source: Source) -> list[Any]:
    import asyncio

    from pipeline.readers import read_records

    async def main() -> list[Any]:
        return [record async for batch in read_records([source]) for record in batch]

    return asyncio.run(main())


@pytest.mark.skipif(os.fsencode("é") != "é".encode(), reason="file names are not UTF-8 here")
def test_a_name_that_is_no_utf_8_is_told_and_passed_over(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"a\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    (tmp_path / "b.jpg").write_bytes(b"x")
    bad, good = files("*.jpg", tmp_path)
    assert bad.problem
    assert bad.key == "a\\xff.jpg"
    assert "its name is not valid UTF-8" in bad.problem.message
    assert good.key == "b.jpg"


def test_links_are_followed(folder: Path) -> None:
    (folder / "photos/link.jpg").symlink_to(folder / "photos/note.txt")
    (folder / "photos/gone.jpg").symlink_to(folder / "nothing")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/a.jpg").write_bytes(b"x")
    (folder / "photos/dogs").symlink_to(folder / "elsewhere")
    keys = [record.key for record in files("photos/**/*.jpg", folder)]
    assert keys == ["photos/b2.jpg", "photos/b10.jpg", "photos/cats/a.jpg", "photos/dogs/a.jpg", "photos/link.jpg"]


@pytest.mark.parametrize("path", ["cyc/**/*.png", "cyc"])
def test_a_link_that_leads_upwards_pays_for_no_file_twice(path: str, tmp_path: Path) -> None:
    (tmp_path / "cyc").mkdir()
    (tmp_path / "cyc/x.png").write_bytes(b"x")
    (tmp_path / "cyc/a").symlink_to(".")
    (tmp_path / "cyc/b").symlink_to(".")
    assert [record.key for record in files(path, tmp_path)] == ["cyc/x.png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("photos/*.png", "no file matches 'photos/*.png'"),
        ("none", "'none' cannot be read: no such file or folder"),
        ("empty", "no file matches 'empty/**/*'"),
        ("-", "needs a folder or a glob, not stdin"),
        ("https://example.org/a.jpg", 'format = "files" is for local folders'),
        (["photos/*.jpg", "photos/b2.jpg"], "'photos/b2.jpg' is given twice (by 'photos/*.jpg' and by"),
        (["photos/*.jpg", "photos/*.jpg"], "is given twice"),
    ],
)
def test_what_is_no_folder_of_files_is_refused(path: str | list[str], message: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        files(path, folder)
    assert message in str(caught.value)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2000), st.sampled_from(["", "c", "/d"])), min_size=2))
def test_names_are_sorted_by_their_numbers(parts: list[tuple[str, int, str]]) -> None:
    """The key is one text a name; it sorts as lists of texts and numbers do."""

    def slow(name: str) -> Any:
        import re

        split = [re.split(r"([0-9]+)", part) for part in name.split("/")]
        return [[int(piece) if at % 2 else piece for at, piece in enumerate(part)] for part in split], name

    names = [f"{first}{number}{last}" for first, number, last in parts]
    assert sorted(names, key=natural_key) == sorted(names, key=slow)


# -- with their texts ------------------------------------------------------------------------------------------------


def test_a_text_file_is_a_record_with_its_text(tmp_path: Path) -> None:
    said = {
        "a.md": b"# One\n\ntwo\n",
        "b.txt": "\ufeffd\u00e9j\u00e0".encode(),
        "c.txt": "caf\u00e9".encode("utf-16"),
        "d.txt": b"",
    }
    for name, content in said.items():
        (tmp_path / name).write_bytes(content)
    records = read_files(".", tmp_path, format="text_files")
    assert [record.fields["text"] for record in records] == ["# One\n\ntwo\n", "d\u00e9j\u00e0", "caf\u00e9", ""]
    assert [record.key for record in records] == list(said)
    assert [record.fields["size_bytes"] for record in records] == [len(content) for content in said.values()]
    assert all(record.problem is None for record in records)


def test_a_change_anywhere_in_a_text_is_seen(tmp_path: Path) -> None:
    path, middle = tmp_path / "a.txt", 2 * EDGE_BYTES
    path.write_bytes(b"x" * 4 * EDGE_BYTES)
    (before,) = read_files("a.txt", tmp_path, format="text_files")
    path.write_bytes(b"x" * middle + b"y" + b"x" * (middle - 1))
    (after,) = read_files("a.txt", tmp_path, format="text_files")
    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (bytes(range(32)) * 9, "a.txt: is not text"),
        (b"caf\xe9 au lait\nd\xe9j\xe0 vu\n", 'a.txt: is not UTF-8 .* set input.encoding = "cp1252"'),
        (b"fine\nnot \xff fine\n", "a.txt: not valid utf-8 at byte 10; see input.encoding"),
        (b"x" * (MOST_TEXT_BYTES + 1), "a.txt: has 4,194,305 bytes; the text of a record may have 4,194,304"),
    ],
)
def test_what_is_no_text_is_one_unreadable_record(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.txt").write_text("fine")
    bad, good = read_files("*.txt", tmp_path, format="text_files")
    assert bad.problem is not None
    assert re.match(told, bad.problem.message)
    assert good.fields["text"] == "fine"
    if b"caf" in content:
        bad, _good = read_files("*.txt", tmp_path, format="text_files", encoding="cp1252")
        assert bad.fields["text"] == content.decode("cp1252")
