"""Rows as bytes: read back they are what was written, and fresh or from the ledger they are the same bytes."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import TEXTS, VALUES

from pipeline import codec
from pipeline.codec import clean
from pipeline.store.formats import cell, csv_block, json_block


def read(block: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(block.decode(), newline=""), strict=True))


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=4), max_size=4))
def test_any_texts_come_back_from_csv(rows: list[list[str]]) -> None:
    assert read(csv_block(rows)) == [clean(row) for row in rows]


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(deadline=None)
def test_a_csv_block_ends_with_one_line_end_and_has_no_bom(row: list[str]) -> None:
    block = csv_block([row])
    assert block.endswith(b"\n")
    assert not block.endswith(b"\r\n")
    assert row[0].startswith("\ufeff") or not block.startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-0.5, "-0.5"),
        (1e16, "1e+16"),
        (2**80, str(2**80)),
        (math.nan, ""),
        (math.inf, ""),
        ("이 제품을 사랑해요!", "이 제품을 사랑해요!"),
        ({"a": [1, "b,c"]}, '{"a":[1,"b,c"]}'),
        ([], "[]"),
        (dt.date(2026, 11, 5), "2026-11-05"),
    ],
)
def test_cells(value: Any, shown: str) -> None:
    assert cell(value) == shown


ODD = VALUES | st.dates() | st.datetimes() | st.decimals() | st.tuples(st.integers(), TEXTS) | st.floats()
RARE = st.dictionaries(TEXTS, ODD | st.lists(ODD, max_size=2), min_size=1, max_size=4)


@given(RARE)
def test_a_fresh_row_and_the_same_row_from_the_ledger_give_the_same_bytes(fields: dict[str, Any]) -> None:
    kept = codec.loads_exact(codec.dumps(fields).decode())
    for escape in (False, True):
        fresh = csv_block([list(fields.values())], escape_formulas=escape)
        assert fresh == csv_block([list(kept.values())], escape_formulas=escape)
    titles = [str(number) for number in range(len(fields))]
    assert json_block(titles, [list(fields.values())]) == json_block(titles, [list(kept.values())])


@pytest.mark.parametrize(
    ("text", "shown"), [("a\ud83d\ude00", "a😀"), ("\ude00\ud83dx", "\ufffd\ufffdx"), ("\ud83d", "\ufffd")]
)
def test_what_is_no_unicode_is_replaced(text: str, shown: str) -> None:
    kept = codec.loads_exact(codec.dumps(text).decode())
    for value in (text, kept):
        assert read(csv_block([[value, "z"]])) == [[shown, "z"]]
        assert json.loads(json_block(["t"], [[value]])) == {"t": shown}


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_any_values_come_back_from_json_lines(row: list[Any]) -> None:
    titles = [f"c{number}" for number in range(len(row))]
    block = json_block(titles, [row])
    assert block.count(b"\n") == 1
    assert json.loads(block) == dict(zip(titles, clean(row), strict=True))


@pytest.mark.parametrize("text", ["=SUM(A1)", "+1", "-1", "@x", "\tx", "\rx"])
def test_formulas_are_escaped_when_asked(text: str) -> None:
    assert read(csv_block([[text, "a=b"]])) == [[text, "a=b"]]
    assert read(csv_block([[text, "a=b"]], escape_formulas=True)) == [[f"'{text}", "a=b"]]


def test_a_number_is_no_formula() -> None:
    assert read(csv_block([[-1, -0.5, Decimal(-2)]], escape_formulas=True)) == [["-1", "-0.5", "'-2"]]
