from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from reader_files import unhurried

from pipeline.readers.lines import LineSplitter

ENDINGS = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1c", "\u2028".encode()]))
SIZES = st.lists(st.integers(1, 7), min_size=1)


def cut(data: bytes, sizes: list[int], splitter: LineSplitter) -> list[bytes]:
    lines: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        lines += splitter.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return lines + splitter.finish()


@unhurried
@given(ENDINGS.map(b"".join), SIZES)
def test_csv_lines_are_the_same_however_the_chunks_fall(data: bytes, sizes: list[int]) -> None:
    assert cut(data, sizes, LineSplitter(1000, universal_newlines=True)) == data.splitlines(keepends=True)


@unhurried
@given(ENDINGS.map(b"".join), SIZES)
def test_other_lines_end_at_a_newline_only(data: bytes, sizes: list[int]) -> None:
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert cut(data, sizes, LineSplitter(1000)) == expected


@unhurried
@given(ENDINGS.map(b"".join), SIZES, st.booleans())
def test_long_lines_are_cut_to_one_byte_over_the_cap(data: bytes, sizes: list[int], universal_newlines: bool) -> None:
    whole = cut(data, [1000], LineSplitter(1000, universal_newlines=universal_newlines))
    assert cut(data, sizes, LineSplitter(3, universal_newlines=universal_newlines)) == [line[:4] for line in whole]


def test_a_line_without_end_is_not_held_whole() -> None:
    splitter = LineSplitter(100)
    for _ in range(50):
        assert splitter.feed(b"x" * 1000) == []
        assert len(splitter.tail) <= 101
    assert splitter.feed(b"\nshort\n") == [b"x" * 101, b"short"]
