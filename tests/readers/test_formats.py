from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from reader_files import fields, read_bytes, troubles, unhurried

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers import ReadProgress, csv_records, formats, json_rows, table

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\n\r\0\u2028\x85'), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
TEXTS = ["plain", 'comma, "quotes"', "two\nlines", "제품을 사랑해요 😀", "line\u2028separator"]


def jsonl_of(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def table_of(texts: list[str], delimiter: str) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerows([["text"], *([text] for text in texts)])
    return buffer.getvalue()


CONTENTS: dict[str, str] = {
    "jsonl": jsonl_of(TEXTS),
    "csv": table_of(TEXTS, ","),
    "tsv": table_of(TEXTS, "\t"),
    "txt": "".join(f"{text}\n" for text in TEXTS if "\n" not in text),
}


def expected(ending: str) -> list[dict[str, str]]:
    return [{"text": text} for text in TEXTS if ending != "txt" or "\n" not in text]


@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("chunk_bytes", [1, 13, 100_000])
def test_each_format_in_each_compression(ending: str, packing: str, chunk_bytes: int) -> None:
    data = PACKERS[packing](CONTENTS[ending].encode())
    records = read_bytes(data, f"in.{ending}{packing}", chunk_bytes=chunk_bytes)

    assert [record.fields for record in records] == expected(ending)
    assert [record.ordinal for record in records] == list(range(len(records)))


@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "utf-8-sig"),
        ("utf-8-sig", "utf-8"),
        ("UTF8", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-32", "utf-32"),
        ("gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 100_000])
def test_encodings_by_name(ending: str, encoding: str, written: str, chunk_bytes: int) -> None:
    data = CONTENTS[ending].encode(written)
    records = read_bytes(data, f"in.{ending}", encoding=encoding, chunk_bytes=chunk_bytes)

    assert [record.fields for record in records] == expected(ending)


@pytest.mark.parametrize(("encoding", "text"), [("cp949", "돈이 아깝다."), ("euc-kr", "최고"), ("latin-1", "déjà")])
@pytest.mark.parametrize("ending", CONTENTS)
def test_regional_encodings(ending: str, encoding: str, text: str) -> None:
    data = {"jsonl": jsonl_of([text]), "csv": f"text\n{text}", "tsv": f"text\n{text}", "txt": text}[ending]
    assert fields(read_bytes(data.encode(encoding), f"in.{ending}", encoding=encoding, chunk_bytes=3)) == [
        {"text": text}
    ]


@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "cp949", "ascii"])
def test_a_line_of_wrong_bytes_is_one_bad_record(ending: str, encoding: str) -> None:
    good, bad = [
        line.encode() for line in (['{"text": "a"}', '{"text": "?"}'] if ending == "jsonl" else ["first", "b?d"])
    ]
    lines = [good, bad.replace(b"?", b"\xff"), good]
    head = b"text\n" if ending in ("csv", "tsv") else b""
    records = read_bytes(head + b"\n".join(lines), f"in.{ending}", encoding=encoding)

    assert [bool(record.problem) for record in records] == [False, True, False]
    [(line, message)] = troubles(records)
    assert line == (3 if head else 2)
    assert f"in.{ending}, line {line}: not valid {encoding} at column" in message
    assert "\ufffd" in records[1].fields["raw"]


def test_utf16_that_is_cut_or_wrong_spoils_its_line_only() -> None:
    data = "one\nt\u0041wo\nthree".encode("utf-16").replace(b"A\0", b"\x00\xd8") + b"x"
    records = read_bytes(data, "in.txt", encoding="utf-16", chunk_bytes=3)

    assert fields(records) == [{"text": "one"}]
    assert [line for line, _ in troubles(records)] == [2, 3]


def test_wide_text_under_another_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(InputError, match=r'in\.csv: begins with the mark of utf-16; set input.encoding = "utf-16"'):
        read_bytes("id\n1\n".encode("utf-16"), "in.csv", encoding="utf-8")
    with pytest.raises(InputError, match="write utf-16-le or utf-16-be"):
        read_bytes("id\n1\n".encode("utf-16-le"), "in.csv", encoding="utf-16")


@pytest.mark.parametrize("encoding", ["klingon", "base64", ""])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(InputError, match=f"input.encoding: {encoding!r} is not a known encoding"):
        read_bytes(b"a", "in.txt", encoding=encoding)


@unhurried
@given(st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=6), st.booleans(), st.integers(1, 30))
def test_json_objects_come_back(objects: list[dict[str, object]], escape: bool, chunk_bytes: int) -> None:
    data = "\r\n".join(json.dumps(each, ensure_ascii=escape) for each in objects).encode()
    records = read_bytes(data, "in.jsonl", chunk_bytes=chunk_bytes)

    assert [record.fields for record in records] == objects
    assert [record.line for record in records] == list(range(1, len(objects) + 1))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', "not valid JSON: unexpected end of data at column 8: '{\"a\": 1'"),
        (b'{"a": nan}', "not valid JSON: invalid literal, expected 'null' at column 7: '{\"a\": nan}'"),
        (b'{"a": "' + b"x" * 500 + b'" "b"}', "column 510: '" + "x" * 37),
        (b"[1, 2]", "a JSON object is needed, but this is a list"),
        (b"17", "a JSON object is needed, but this is a number"),
        (b"null", "a JSON object is needed, but this is null"),
        (b"\0\0\0", "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        ('{"é": "'.encode() + b'\xe9"}', "not valid utf-8 at column 8; see input.encoding"),
    ],
)
def test_a_bad_json_line_is_told_and_the_rest_goes_on(line: bytes, message: str) -> None:
    records = read_bytes(b'{"a": 1}\n\n' + line + b'\n  \r\n{"a": 2}', "in.jsonl")

    assert fields(records) == [{"a": 1}, {"a": 2}]
    [(number, trouble)] = troubles(records)
    assert number == 3
    assert trouble.startswith("in.jsonl, line 3: ")
    assert message in trouble
    assert len(trouble) < 250
    assert records[1].problem
    assert records[1].problem.code == "unreadable"
    assert records[1].fields == {"raw": line.decode(errors="replace")}


def test_long_integers_are_not_rounded() -> None:
    data = b'{"id": 123456789012345678901234567890, "digits": "00000000000000000000000", "x": [18446744073709551616]}'
    [record] = read_bytes(data, "in.jsonl", key="id")

    assert record.key == "123456789012345678901234567890"
    assert record.fields["x"] == [18446744073709551616]
    [record] = read_bytes(b'{"x": -9223372036854775809}', "in.jsonl")
    assert repr(record.fields["x"]) == "-9223372036854775809"


def test_what_is_no_json_only_by_what_other_programs_write_is_read() -> None:
    progress = ReadProgress()
    data = b'{"a": NaN, "b": -Infinity}\n{"a": "cut \\ud83d", "\\ude00": 1}\n{"a": 1e400, "b": 0.1234567890123456789}'
    records = read_bytes(data, "in.jsonl", progress=progress)

    assert fields(records)[:2] == [{"a": None, "b": "-inf"}, {"a": "cut \ufffd", "\ufffd": 1}]
    assert codec.dumps(records[2].fields) == b'{"a":1e400,"b":0.1234567890123456789}'
    assert progress.format_notes() == ["in.jsonl: characters that were cut in two are read as \ufffd"]


def test_raw_text_is_kept_up_to_ten_thousand_characters() -> None:
    [record] = read_bytes("é".encode() * 30_000, "in.jsonl")
    assert record.fields == {"raw": "é" * 10_000}


@pytest.mark.parametrize("name", ["in.jsonl", "in.txt"])
def test_a_line_over_the_cap_is_one_bad_record(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, json_rows):
        monkeypatch.setattr(module, "LINE_BYTES", 50)
    records = read_bytes(b'{"a": "1"}\n{"a": 1}' + b" " * 100 + b'\n{"a": "2"}\n', name, chunk_bytes=7)

    assert troubles(records) == [(2, f"{name}, line 2: a line longer than 50 bytes")]
    assert len(fields(records)) == 2


def test_a_csv_line_over_the_cap_is_one_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "RECORD_CHARS", 50)
    monkeypatch.setattr(csv_records.CsvParser.__init__, "__kwdefaults__", {"max_chars": 50})
    long, too_long = "é" * 40, "é" * 250
    records = read_bytes(f"a,b\n{long},1\n{too_long},2\n3,4\n".encode(), "in.csv", chunk_bytes=7)

    assert troubles(records) == [(3, "in.csv, line 3: a line longer than 50 characters")]
    assert fields(records) == [{"a": long, "b": "1"}, {"a": "3", "b": "4"}]


def test_digests_are_of_the_content_and_of_all_that_names_it() -> None:
    def digests(data: bytes, name: str) -> list[int]:
        return [record.digest for record in read_bytes(data, name)]

    plain = digests(b'{"a": 1}\n{"b": 2}', "in.jsonl")
    assert plain == [codec.digest64(b'{"a": 1}'), codec.digest64(b'{"b": 2}')]
    assert digests(b'\xef\xbb\xbf{"a": 1}\r\n\n{"b": 2}\r\n', "in.jsonl") == plain
    assert digests(b'a,b\n1,"2"\n', "in.csv") == digests(b"a\tb\n1\t2", "in.tsv")
    assert digests(b"a,b\n1,2\n", "in.csv") != digests(b"b,a\n1,2\n", "in.csv"), "the columns changed places"
    assert digests(b"x\r\ny", "in.txt") == digests(b"x\n\ny\n", "in.txt")
    assert digests(b'{"a": 1}', "in.txt") != plain[:1], "the same line is another record as text"


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.tsv", "in.txt", "in.txt.gz"])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"\n\r\n"])
def test_an_empty_file_has_no_records(name: str, data: bytes) -> None:
    assert read_bytes(gzip.compress(data) if name.endswith(".gz") else data, name) == []
    assert read_bytes(b"", name) == []


def test_a_header_alone_has_no_records() -> None:
    assert read_bytes(b"id,text\n", "in.csv") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n,,\n1,2,3", "in.csv, line 2: the header names no column; set input.header to false or to a list of names"),
        (b'id,"te"xt\n1,2', "in.csv, line 1: the header cannot be read: not valid CSV"),
        (b'id,"text\n1,2', "the header cannot be read: a quote is opened here and never closed"),
        (b"id,t\xe9xt\n1,2", "the header cannot be read: not valid utf-8 at column 5; see input.encoding"),
    ],
)
def test_a_header_that_names_no_fields_stops_the_run(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_bytes(data, "in.csv")
    assert message in str(caught.value)


def test_csv_keeps_odd_characters() -> None:
    data = "text,n\na\0b,1\nc\u2028d\x0b\x0ce,2\n\r'f,3\rg,4".encode()
    assert [each["text"] for each in fields(read_bytes(data, "in.csv"))] == ["a\0b", "c\u2028d\x0b\x0ce", "'f", "g"]


def test_csv_finds_the_line_of_wrong_bytes_behind_quoted_newlines() -> None:
    data = b'id,text\n1,"two\nlines"\n2,"\xff\n"\n3,"ok\nok"\n'
    records = read_bytes(data, "in.csv", chunk_bytes=5)

    assert [record.line for record in records] == [2, 4, 6]
    assert troubles(records) == [(4, "in.csv, line 4: not valid utf-8 at column 4; see input.encoding")]
    assert records[1].fields == {"raw": '2,"\ufffd\n"'}
