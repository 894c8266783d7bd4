"""JSON in and out: integers keep their digits, what JSON cannot hold has one rule, and both ways give the same."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec

#: integers around the ends of 64 bits, and far beyond them
INTEGERS = st.one_of(
    st.integers(),
    st.integers(-(10**300), 10**300),
    st.sampled_from([2**63, -(2**63)]).flatmap(lambda edge: st.integers(edge - 3, edge + 3)),
    st.integers(2**64 - 3, 2**64 + 3),
)


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaf = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | text
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
    )


def same(one: Any, other: Any) -> bool:
    """Equal, and an integer is no float."""
    return repr(one) == repr(other)


@given(values(st.text()))
def test_what_is_written_is_what_is_read(value: Any) -> None:
    text = codec.dumps(value).decode()
    assert same(codec.loads_digits(text), value)
    assert same(codec.loads_exact(text), value)
    assert same(codec.plain(value), value)


@given(values(st.text(st.characters(codec="utf-8") | st.just("\udfff"))))
def test_lone_surrogates_are_kept_in_our_own_texts(value: Any) -> None:
    assert same(codec.loads_exact(codec.dumps(value).decode()), value)


HALF, WHOLE = "nice \ud83d", "nice \N{REPLACEMENT CHARACTER}"


def test_half_a_character_is_read_as_its_sign_at_every_border() -> None:
    """A text that was cut in the middle of an emoji is worth as much as any other."""
    value = {"a": HALF, HALF: [HALF, {"b": HALF}], "n": 2**70}
    assert codec.plain(value) == {"a": WHOLE, WHOLE: [WHOLE, {"b": WHOLE}], "n": 2**70}
    for half in ("\\ud83d", "\\uDE00", "\\ud83d\\ud83d", "\\uDC00\\ud83d", "\ud83d"):
        read = codec.loads_digits(f'{{"a": "nice {half}", "n": 1{"0" * 30}}}')
        assert read in ({"a": WHOLE, "n": 10**30}, {"a": WHOLE + WHOLE[-1], "n": 10**30}), half
    assert codec.loads_digits('"\\ud83d\\ude00 \\\\ud83d \\ud83d"') == "\N{GRINNING FACE} \\ud83d " + WHOLE[-1]


@given(st.text("ab1é ", max_size=40), INTEGERS)
def test_a_long_integer_is_found_wherever_it_stands(before: str, number: int) -> None:
    """Only every ninth character is looked at first: no place of an integer may fall through that."""
    text = codec.dumps([before, number]).decode()
    assert same(codec.loads_digits(text), [before, number])


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "[99999999999999999999, NaN]", '["\\ud800", NaN]', '["\\ud8"]', "\ud800"]
)
def test_the_reader_of_foreign_texts_takes_no_more_than_json(text: str) -> None:
    with pytest.raises(codec.JSONDecodeError):
        codec.loads_digits(text)


def test_what_is_too_long_or_too_deep_is_refused_as_json() -> None:
    with pytest.raises(codec.JSONDecodeError, match="infinity"):
        codec.loads_digits("9" * 400)
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('[0,{"a":', "}]")):
        at_most = codec.MOST_DEPTH // (opening.count("[") + opening.count("{"))
        text = opening * at_most + "0" + closing * at_most
        assert codec.loads(text) == codec.loads(text.encode()) == codec.loads_digits(text)
        deeper = opening * (at_most + 1) + "0" + closing * (at_most + 1)
        for read in (codec.loads, codec.loads_digits, lambda data: codec.loads(data.encode())):
            with pytest.raises(codec.JSONDecodeError, match="more than 200 levels deep"):
                read(deeper)


def test_a_long_text_that_is_not_deep_is_read() -> None:
    assert len(codec.loads(codec.dumps([{"a": [n]} for n in range(1_000)]))) == 1_000


def test_what_an_earlier_version_wrote_deeper_is_still_read_from_the_ledger() -> None:
    text = "[" * 400 + "]" * 400
    assert codec.dumps(codec.loads_exact(text)).decode() == text
    for endless in ("[" * 200_000, "9" * 5_000):
        with pytest.raises(codec.JSONDecodeError):
            codec.loads_exact(endless)


@dataclasses.dataclass
class Point:
    x: float


@pytest.mark.parametrize("beside", [1, 2**70, "\ud800"])
def test_nan_is_null_whatever_stands_beside_it(beside: Any) -> None:
    """What the fast writer cannot take is written by another: both have one rule for what is no JSON."""
    value = {"v": beside, "w": math.nan, "d": [math.inf, {"z": -math.inf}], "p": Point(math.nan), "t": "NaN"}
    wanted = {"v": beside, "w": None, "d": [None, {"z": None}], "p": {"x": None}, "t": "NaN"}
    if isinstance(beside, int):
        assert codec.plain(value) == wanted
    assert codec.loads_exact(codec.dumps(value).decode()) == wanted
    assert codec.loads_exact(codec.pretty(value).decode()) == wanted


@pytest.mark.parametrize("beside", [1, 2**70])
def test_what_json_does_not_know_has_one_text(beside: int) -> None:
    value = {"v": beside, "day": datetime.date(2026, 1, 2), "other": complex(1, 2), 3: (1, 2)}
    assert codec.plain(value) == {"v": beside, "day": "2026-01-02", "other": "(1+2j)", "3": [1, 2]}


@given(st.dictionaries(st.text(), INTEGERS))
def test_equal_values_have_equal_bytes(value: dict[str, int]) -> None:
    assert codec.canonical(value) == codec.canonical(dict(reversed(value.items())))
    assert same(codec.loads_exact(codec.canonical(value).decode()), dict(sorted(value.items())))


#: as much of a decimal number as a foreign program may write
DECIMALS = st.from_regex(r"-?(0|[1-9][0-9]{0,24})\.[0-9]{1,30}([eE][+-]?[0-9]{1,4})?", fullmatch=True)


@given(st.lists(DECIMALS, min_size=1, max_size=4), st.booleans())
def test_decimal_numbers_keep_their_digits(numbers: list[str], spaced: bool) -> None:
    sign = ": " if spaced else ":"
    text = "{" + ",".join(f'"n{place}"{sign}{number}' for place, number in enumerate(numbers)) + "}"
    value = codec.loads_numbers(text.encode())
    assert all(isinstance(each, float) for each in value.values())
    for form in (value, {**value, "long": 2**80, "half": "\ud83d"}):  # both ways of writing
        again = codec.loads_exact(codec.dumps(form).decode())
        assert [Decimal(str(again[f"n{place}"])) for place in range(len(numbers))] == list(map(Decimal, numbers))
    assert codec.loads_exact(codec.dumps(value).decode()) == codec.plain(value) == value


@pytest.mark.parametrize("number", ["1e-400", "1E+400", "-1e400", "9007199254740993.0", "0.1234567890123456789"])
def test_numbers_beyond_a_float_are_floats_with_a_text(number: str) -> None:
    data = f'[{number}, "1e-400", 1.5]'.encode()
    value = codec.loads_loosely(data) if "400" in number and "-4" not in number else codec.loads_numbers(data)
    assert str(value[0]) == f"{value[0]}" == number.lower()
    assert value[0] + 0 == float(number)
    assert copy.deepcopy(value)[0].text == number.lower()
    assert codec.dumps(value) == f'[{number.lower()},"1e-400",1.5]'.encode()


def test_floats_as_programs_write_them_stay_floats() -> None:
    numbers = [0.1 + 0.2, 1 / 3, 1e22, 5e-324, 1.7976931348623157e308, -0.0]
    value = codec.loads_numbers(repr(numbers).encode())
    assert [type(each) for each in value] == [float] * 6
    assert repr(value) == repr(numbers)


def test_what_other_programs_write_is_read_loosely() -> None:
    value = codec.loads_loosely(b'{"a": NaN, "b": [Infinity, -Infinity], "c": "x \\ud83d", "d": "NaN"}')
    assert value == {"a": None, "b": ["inf", "-inf"], "c": "x \ufffd", "d": "NaN"}
    for bad in (b'{"a": nan}', b"{'a': 1}", b'{"a": 1', b'{"a": "\xff"}'):
        with pytest.raises(ValueError):  # noqa: PT011 - of either kind
            codec.loads_loosely(bad)
    with pytest.raises(codec.JSONDecodeError):
        codec.loads_exact('{"a": NaN}')
