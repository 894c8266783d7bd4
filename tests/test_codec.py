"""JSON in and out: integers keep their digits, what JSON cannot hold has one rule, and both ways give the same."""

from __future__ import annotations

import dataclasses
import datetime
import math
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
