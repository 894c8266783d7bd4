from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_files import fields, read_bytes, troubles, unhurried

from pipeline.readers import csv_records
from pipeline.readers.csv_records import UNCLOSED_QUOTE, CsvParser, CsvRecord
from pipeline.readers.dialect import Layout

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('",\n\r\t \ufeff\u2028'), max_size=12)
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), max_size=8))
#: among them lines that leave a quote open, and lines longer than the caps that the tests set
LINES = ['"abcdef\n', "a\n", "bb,c\n", '"x\ny"\n', '"x""\n', '"' + "d" * 25 + "\n", "e" * 25 + "\n", '"f"g\n']
OPEN = st.lists(st.sampled_from(LINES), max_size=14).map("".join)
MESSY = st.lists(st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", "bb", '"\n', ',"']), max_size=40).map("".join)


def lines_of(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def cuts(text: str, sizes: list[int], max_chars: int = 1000) -> list[CsvRecord]:
    """The records of a text whose lines come in groups of these sizes, over and over."""
    cutter, lines = CsvParser(Layout(",", '"'), max_chars=max_chars), lines_of(text)
    found: list[CsvRecord] = []
    turn = 0
    while lines:
        size = sizes[turn % len(sizes)]
        found += cutter.feed(lines[:size])
        lines, turn = lines[size:], turn + 1
    return found + list(cutter.feed([], end=True))


@unhurried
@given(TABLES, st.integers(1, 9), st.sampled_from(["\n", "\r\n"]), st.sampled_from([",", "\t"]))
def test_what_the_csv_writer_writes_is_read_back(
    rows: list[list[str]], chunk_bytes: int, ending: str, delimiter: str
) -> None:
    columns = [f"column {number}" for number in range(len(rows[0]) if rows else 1)]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows([columns, *rows])
    name = "table.csv" if delimiter == "," else "table.tsv"

    records = read_bytes(buffer.getvalue().encode(), name, chunk_bytes=chunk_bytes)

    assert [list(record.fields.values()) for record in records] == rows
    assert not troubles(records)
    assert all(list(record.fields) == columns for record in records)


@unhurried
@given(MESSY | OPEN, st.lists(st.integers(1, 5), min_size=1), st.sampled_from([3, 8, 20, 1000]))
def test_broken_text_gives_the_same_records_however_its_lines_come(text: str, sizes: list[int], reach: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # So small that the reach of the search for a quote's end shrinks and grows within these texts.
        patch.setattr(csv_records, "_LEAST_CHARS", 2)
        patch.setattr(csv_records, "_REGAIN_CHARS", 3)
        assert cuts(text, sizes, reach) == cuts(text, [10_000], reach)


@unhurried
@given(MESSY | OPEN, st.sampled_from([3, 8, 20, 1000]))
def test_every_line_is_in_one_record(text: str, reach: int) -> None:
    left = dict(enumerate(lines_of(text), 1))
    for number, raw, _, _ in cuts(text, [3], reach):
        assert [left.pop(number + index) for index in range(len(raw))] == raw
    assert not "".join(left.values()).strip("\r\n")


@unhurried
@given(MESSY)
def test_well_formed_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    try:
        expected = [row for row in csv.reader(lines_of(text), strict=True) if row]
    except csv.Error:
        return
    assert [(cells, trouble) for _, _, cells, trouble in cuts(text, [1])] == [(row, "") for row in expected]


def test_a_quote_that_is_never_closed_costs_its_own_line() -> None:
    records = read_bytes(b'id,text\n1,good\n2,"open\n3,fine\n4,"also ""fine"""\n5,last', "t.csv", key="id")

    assert [record.key for record in records] == ["1", "(t.csv:3)", "3", "4", "5"]
    assert troubles(records) == [(3, "t.csv, line 3: not valid CSV: ',' expected after '\"'")]

    records = read_bytes(b'id,text\n1,good\n2,"open\n3,fine\n4,last\n', "t.csv", key="id")

    assert [record.key for record in records] == ["1", "(t.csv:3)", "3", "4"]
    assert troubles(records) == [(3, f"t.csv, line 3: {UNCLOSED_QUOTE}")]
    assert records[1].fields == {"raw": '2,"open'}


def test_a_quote_that_stays_open_too_long_is_taken_as_never_closed() -> None:
    body = "".join(f"{number},text\n" for number in range(50))
    found = cuts(f'a,b\n1,"open\n{body}2,"late"\n', [7], max_chars=100)

    assert [(number, trouble) for number, _, _, trouble in found if trouble] == [(2, UNCLOSED_QUOTE)]
    assert len(found) == 53
    assert found[-1][2] == ["2", "late"]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines the parser was given, in its only cell."""
    count = [0]
    real = csv.reader

    def counting_reader(lines: Iterable[str], **choices: Any) -> Any:
        def counted() -> Iterator[str]:
            for line in lines:
                count[0] += 1
                yield line

        return real(counted(), **choices)

    monkeypatch.setattr(csv, "reader", counting_reader)
    return count


def test_a_file_full_of_open_quotes_is_not_read_over_and_over(
    looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line leaves a quote open and the next closes it and opens one: every look for the end goes to the cap.

    With a full look from each line a file of a million such lines takes hours.
    """
    monkeypatch.setattr(csv_records, "_LEAST_CHARS", 1024)
    records = read_bytes(b"a,b,c\n" + b'name","colour","size\n' * 3000, "stripped.csv")

    assert len(records) == 3000
    assert all(record.problem for record in records)
    assert looked_at[0] < 100 * len(records)


def test_a_long_record_is_not_read_over_with_each_line_that_comes(looked_at: list[int]) -> None:
    lines = ['"first\n', *["a line of some length\n"] * 5000, 'last"\n']

    assert [len(raw) for _, raw, _, _ in cuts("".join(lines), [1], max_chars=1_000_000)] == [len(lines)]
    assert looked_at[0] < 40 * len(lines)


def test_long_records_pass_again_after_good_ones() -> None:
    def found(text: str, *, end: bool = False) -> list[str]:
        return [trouble for *_, trouble in cutter.feed(lines_of(text), end=end)]

    cutter = CsvParser(Layout(",", '"'), max_chars=100_000)
    long = '3,"' + "y,z\n" * 15_000 + '"\n'
    assert found(long) == [""]
    # One quote that never closes; the reach of the search is cut to 16 KiB and three good records give back 12 KiB.
    assert found('1,"open\n' + 3 * f"2,{'x' * 40_000}\n") == [UNCLOSED_QUOTE, "", "", ""]
    assert found(long, end=True)[0] == UNCLOSED_QUOTE
    assert found("4,z\n" * 20) == [""] * 20
    assert found(long) == [""]


def test_a_line_over_the_cap_is_one_bad_record() -> None:
    found = cuts("a,b\n" + "x" * 200 + ",y\nc,d\n", [1], max_chars=100)

    assert [(number, trouble) for number, _, _, trouble in found] == [
        (1, ""),
        (2, "a line longer than 100 characters"),
        (3, ""),
    ]


def test_row_length_and_place() -> None:
    data = b'id,text\r\n1,"two\r\nlines"\r\n\r\n2\r\n3,a,b\r\n4,ok\r\n'
    records = read_bytes(data, "t.csv")

    assert [record.line for record in records] == [2, 5, 6, 7]
    assert fields(records) == [{"id": "1", "text": "two\r\nlines"}, {"id": "4", "text": "ok"}]
    assert troubles(records) == [
        (5, "t.csv, line 5: 1 cells where the header has 2"),
        (6, "t.csv, line 6: 3 cells where the header has 2"),
    ]
    assert records[2].fields == {"raw": "3,a,b"}


@unhurried
@given(st.lists(st.sampled_from(LINES) | MESSY.map(lambda text: text + "\n"), min_size=1, max_size=6).map("".join))
def test_lines_cut_at_once_are_the_records_that_are_cut_one_by_one(text: str) -> None:
    lines = lines_of(text)
    rows = CsvParser(Layout(",", '"'), max_chars=30).rows_of(lines)
    if rows is not None:
        found = [(number, [line], cells, "") for number, (line, cells) in enumerate(zip(lines, rows, strict=True), 1)]
        assert [cut for cut in found if cut[2]] == list(CsvParser(Layout(",", '"'), max_chars=30).feed(lines, end=True))


#: what stands in a line that is not as the others, or only looks so
ODD = [
    "",
    '"d",e',
    '"f" ,g',
    ' "h",i',
    '"j\nk",l',
    'm"n,o',
    "p",
    "q,r,s",
    "\ufeffone,two",
    "one,two",
    "t\u2028,u",
    "\udcff,v",
    '"',
]


@pytest.mark.parametrize("odd", ODD)
def test_a_line_is_read_at_once_as_it_is_by_itself(odd: str) -> None:
    """What the columns look like is known after 200 rows: before, as in one batch of all, each line is looked at."""
    known = [f"x{number % 3},{60 * 'y'}" for number in range(1_200)]  # more than tells how it is written
    data = "\n".join(["one,two", *known, odd, "w,x", *known[:3]]).encode("utf-8", "surrogateescape")
    whole = read_bytes(data, "t.csv", batch=10_000)
    assert read_bytes(data, "t.csv", batch=601) == whole
    assert read_bytes(data, "t.csv", batch=1) == whole
