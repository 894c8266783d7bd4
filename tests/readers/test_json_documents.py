"""JSON that is no line a record, and files that are no text."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_files import fields, read_bytes, troubles, unhurried

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, json_documents, json_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\{}[],:\n'), max_size=8)
VALUES = st.recursive(
    st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=3)
FORMS: dict[str, Any] = {
    "array": lambda rows, indent: json.dumps(rows, indent=indent),
    "array with an object a line": lambda rows, _: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "one after the other": lambda rows, indent: "\n".join(json.dumps(row, indent=indent or 1) for row in rows),
    "two arrays": lambda rows, indent: json.dumps(rows[:1], indent=indent) + "\n" + json.dumps(rows[1:]),
}


@unhurried
@given(
    st.lists(OBJECTS, min_size=2, max_size=5),
    st.sampled_from(list(FORMS)),
    st.sampled_from([None, 2]),
    st.integers(1, 40),
    st.booleans(),
)
def test_objects_come_back_however_they_are_written(
    rows: list[dict[str, Any]], form: str, indent: int | None, chunk_bytes: int, packed: bool
) -> None:
    data = FORMS[form](rows, indent).encode()
    name = "in.json.gz" if packed else "in.json"
    records = read_bytes(gzip.compress(data) if packed else data, name, chunk_bytes=chunk_bytes)

    assert [record.fields for record in records] == rows
    assert [record.key for record in records] == [f"{name}:{number}" for number in range(1, len(rows) + 1)]


def test_an_array_in_a_file_of_lines_is_read_told_and_doubted() -> None:
    data = b'[\n{"id": "1"},\n{"id": "2"}\n]\n'
    progress = ReadProgress()
    records = read_bytes(data, "in.jsonl", progress=progress, key="id")

    assert [record.key for record in records] == ["1", "2"]
    [(told, doubtful)] = progress.notes_with_doubts()
    assert doubtful
    assert told.startswith("in.jsonl: is a JSON array or indented JSON, not an object a line as its name says")
    with pytest.raises(InputError, match=r'not an object a line; set input\.format = "json"'):
        read_bytes(data, "in.jsonl", format="jsonl")
    assert len(read_bytes(data, "in.jsonl", format="json", progress=(said := ReadProgress()))) == 2
    assert not any(doubt for _, doubt in said.notes_with_doubts())


@pytest.mark.parametrize(
    ("name", "data", "count"),
    [
        ("in.json", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', 3),  # lines: one that is broken costs no other
        ("in.jsonl", b'[{"a": 1}]\n[{"a": 2}]\n', 2),  # a list a line: both are told
        ("in.jsonl", b'{"a": 1\n{"a": 2}\n', 2),
        ("in.jsonl", b'{"a": 1},\n{"a": 2},\r\n{"a": 3}', 3),
        ("in.json", b'{"a": 1}', 1),
        ("in.json", b"[]", 0),
        ("in.json", b"", 0),
    ],
)
def test_lines_stay_lines(name: str, data: bytes, count: int) -> None:
    assert len(read_bytes(data, name)) == count


def test_what_is_no_object_is_told_and_the_rest_goes_on() -> None:
    records = read_bytes(b'[{"a": 1}, "text", 17, [1], {"b": tru}, {"c": NaN}]', "in.json")
    assert fields(records) == [{"a": 1}, {"c": None}]
    assert [(number, message.partition(": ")[2][:31]) for number, message in troubles(records)] == [
        (2, "a JSON object is needed, but he"),
        (3, "a JSON object is needed, but th"),
        (4, "not valid JSON: invalid literal"),
    ]
    assert "in.json, record 3: a JSON object is needed, but this is a list" in troubles(records)[1][1]


@pytest.mark.parametrize("end", ["", ",", ', {"c": "x', ', {"c": "x\\', ', {"c": ["y"'])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_an_array_that_is_cut_off_says_so_after_what_came_before(end: str, chunk_bytes: int) -> None:
    records = read_bytes(f'[{{"a": 1}}, {{"b": 2}}{end}'.encode(), "in.json", chunk_bytes=chunk_bytes)
    assert fields(records) == [{"a": 1}, {"b": 2}]
    assert troubles(records) == [(3, f"in.json, record 3: {json_documents.TRUNCATED}")]


@pytest.mark.parametrize("chunk_bytes", [3, 10_000])
def test_a_record_that_is_too_long_is_one_bad_record(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_rows, json_documents):
        monkeypatch.setattr(module, "LINE_BYTES", 50)
    long = {"x": ["{[" + "y" * 300, {"z": "}" * 30}] * 2}
    records = read_bytes(json.dumps([{"a": 1}, long, {"b": 2}]).encode(), "in.json", chunk_bytes=chunk_bytes)
    assert fields(records) == [{"a": 1}, {"b": 2}]
    assert troubles(records) == [(2, "in.json, record 2: a line longer than 50 bytes")]


TWO = [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("value", "said", "found"),
    [
        ({"meta": {}, "data": TWO}, None, TWO),
        ({"data": TWO[:1]}, None, TWO[:1]),
        ({"took": 5, "hits": {"total": 2, "hits": TWO}}, None, TWO),
        ({"count": 2, "next": None, "a.b": TWO, "results": []}, None, TWO),
        ({"id": "7", "text": "two words", "spans": TWO}, "none", [{"id": "7", "text": "two words", "spans": TWO}]),
        ({"train": TWO, "test": TWO[:1]}, "test", TWO[:1]),
        ({"x": {"y.z": TWO}}, "x.y.z", TWO),
        ({"a": [1, 2]}, None, [{"a": [1, 2]}]),
        ({"id": 1, "spans": TWO[:1]}, None, [{"id": 1, "spans": TWO[:1]}]),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_records_in_a_list_of_the_only_object_are_read(value: Any, said: str | None, found: Any, indent: Any) -> None:
    progress = ReadProgress()
    data = json.dumps(value, indent=indent).encode()
    said = "" if said == "none" else said
    assert fields(read_bytes(data, "in.json", records=said, progress=progress)) == found
    assert [note.partition(" objects in ")[0] for note in progress.format_notes()] == (
        [f"in.json: its records are the {len(found):,}"] if said is None and found != [value] else []
    )


@pytest.mark.parametrize(
    ("value", "said", "message"),
    [
        ({"train": TWO, "test": TWO}, None, "'train' with 2 objects, 'test' with 2 objects: set input.records to the"),
        (
            {"id": "7", "text": "two words", "spans": TWO},
            None,
            'set input.records .* or to "none" if',
        ),
        ({"text": {"0": "a", "1": "b"}, "y": {"0": 1, "1": 0}}, None, "orient='records', lines=True"),
        ({"text": ["a", "b"], "y": [1, 0]}, None, 'set input.records to "none" if the object is one record'),
        ({"data": TWO}, "rows", "there is no list at 'rows'; there is 'data' with 2 objects"),
    ],
)
def test_a_list_that_may_hold_the_records_is_asked_about(value: Any, said: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_bytes(json.dumps(value).encode(), "in.json", records=said)


def test_what_is_no_object_in_the_list_is_an_unreadable_record() -> None:
    records = read_bytes(b'{"data": [{"a": 1.10}, 5]}', "in.json", records="data")
    assert [str(record.fields["a"]) for record in records[:1]] == ["1.1"]
    assert troubles(records) == [(2, "in.json, record 2: a JSON object is needed, but this is a number")]
    with pytest.raises(InputError, match=r"input\.records is for a file that is one object"):
        read_bytes(b'{"a": 1}\n{"a": 2}', "in.jsonl", records="data")


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.txt"])
def test_the_marks_of_files_that_were_joined_are_no_text(name: str) -> None:
    part = b"\xef\xbb\xbf" + (b"some text\n" if name == "in.txt" else b'{"text": "some text"}\n')
    assert fields(read_bytes(part * 3, name)) == [{"text": "some text"}] * 3
    if name == "in.json":
        assert len(fields(read_bytes(part.replace(b":", b":\n") * 3, name))) == 3


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"a": 1, "b": "x", "a": 2}', {"a": 1, "b": "x", "a_2": 2}),
        ('{"a" : 1, "a_2": 5, "a" : 2, "a": 3}', {"a": 1, "a_2": 5, "a_3": 2, "a_4": 3}),
        ('{"b": [{"a": NaN, "a": 1.10}]}', {"b": [{"a": None, "a_2": 1.1}]}),
        ('{"a": {"x": 1}, "a": {"x": 1}}', {"a": {"x": 1}}),
        ('{"a": "\\"a\\": 1, \\"a\\": 2"}', {"a": '"a": 1, "a": 2'}),
    ],
)
def test_a_key_that_comes_again_with_another_value_loses_none(line: str, found: Any) -> None:
    progress = ReadProgress()
    assert fields(read_bytes(f'{{"a": 0}}\n{line}\n'.encode(), "in.jsonl", progress=progress)) == [{"a": 0}, found]
    assert bool(progress.format_notes()) == ("_2" in str(found))


def packed(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "id,text\n1,a\n")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.csv", packed(["r.csv"]), "r.csv: is a zip archive: unpack it first (unzip r.csv)"),
        (
            "r.xlsx",
            packed(["[Content_Types].xml", "xl/workbook.xml"]),
            "r.xlsx: is an Excel workbook: save its sheet as",
        ),
        ("r.csv", packed(["xl/workbook.xml"]), "read_excel('r.csv').to_csv('r.csv', index=False)"),
        ("r.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is an Excel workbook"),
        ("r", packed(["a", "b"]), "r: is a zip archive"),
        ("r.docx", packed(["word/document.xml"]), "is a Word document"),
        ("r.tsv", tarred(), "is a tar archive"),
        ("r.csv.gz", gzip.compress(tarred(), mtime=0), "is a tar archive"),
        (
            "r.csv",
            b"\n <!DOCTYPE html>\n<html><body>Not found",
            "is an HTML page, most likely a login or an error page saved",
        ),
        ("r.jsonl", b"<html>", "is an HTML page"),
        ("r.json", b'<?xml version="1.0"?><Error/>', "is XML: convert it"),
        ("r.csv", b"PAR1" + b"\0" * 50, 'is a Parquet file: set input.format = "parquet"'),
        ("r.db", b"SQLite format 3\0" + b"\0" * 50, "set input.path to sqlite:///r.db and input.table"),
        ("r.txt", b"%PDF-1.7\n", "is a PDF"),
        ("r.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "is a Git LFS pointer"),
    ],
)
def test_what_is_no_text_is_named_with_what_to_do(name: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_bytes(data, name)
    assert message in str(caught.value)


def test_markup_may_be_text() -> None:
    assert len(read_bytes(b"<html>\n<body>\n", "in.txt")) == 2
    assert fields(read_bytes(b"text\n<html> is a tag\n", "in.csv")) == [{"text": "<html> is a tag"}]
