from __future__ import annotations

import asyncio
import datetime
import decimal
import gc
import math
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import InputError
from pipeline.readers import ReadProgress, iterable_source, peek, read_records
from pipeline.records import Record


def read(records: Any, **choices: Any) -> list[Record]:
    async def main() -> list[Record]:
        found: list[Record] = []
        async with aclosing(read_records([iterable_source(records)], **choices)) as batches:
            async for batch in batches:
                assert 0 < len(batch) <= choices.get("batch", 256)
                found += batch
        return found

    return asyncio.run(main())


async def streamed(records: list[Any]) -> AsyncIterator[Any]:
    for record in records:
        await asyncio.sleep(0)
        yield record


KINDS: dict[str, Callable[[list[Any]], Any]] = {
    "list": lambda rows: rows,
    "generator": lambda rows: (row for row in rows),
    "stream": streamed,
}


@pytest.mark.parametrize("kind", KINDS)
def test_mappings_become_records(kind: str) -> None:
    rows = [{"id": number, "text": f"t{number}"} for number in range(1000)]
    records = read(KINDS[kind](rows), key="id", batch=37)
    assert [record.fields for record in records] == rows
    assert [(record.source, record.line, record.key) for record in records[:2]] == [
        ("records", 1, "0"),
        ("records", 2, "1"),
    ]
    assert [record.key for record in read(KINDS[kind](rows), limit=2)] == ["records:1", "records:2"]
    assert [record.digest for record in read(KINDS[kind](rows))] == [record.digest for record in records]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=5))
def test_what_is_json_stays_as_it_is(rows: list[dict[str, Any]]) -> None:
    assert [record.fields for record in read(rows)] == rows


def test_values_that_json_does_not_know_become_text() -> None:
    class Word(str):
        __slots__ = ()

    fields = {
        "decimal": decimal.Decimal("1.10"),
        "date": datetime.date(2026, 1, 2),
        "stamp": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        "span": datetime.timedelta(seconds=90),
        "uuid": uuid.UUID(int=1),
        "bytes": b"\xff\x00",
        "nan": math.nan,
        "tuple": (1, Word("a")),
        "mapping": {1: {"deep": decimal.Decimal(2)}},
    }
    [record] = read([fields])
    assert record.fields == {
        "decimal": "1.10",
        "date": "2026-01-02",
        "stamp": "2026-01-02T03:00:00+00:00",
        "span": "0:01:30",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bytes": "/wA=",
        "nan": None,
        "tuple": [1, "a"],
        "mapping": {"1": {"deep": "2"}},
    }
    assert codec.loads(codec.dumps(record.fields)) == record.fields


def test_frames_of_pandas_and_polars_give_the_same_records() -> None:
    import numpy as np
    import pandas as pd
    import polars as pl

    stamps = [datetime.datetime(2026, 1, 2, 3, 4, 5), None]  # noqa: DTZ001 - as frames mostly hold them
    columns = {"id": [1, 2], "text": ["a", None], "share": [0.5, math.nan], "when": stamps}
    wanted = [
        {"id": 1, "text": "a", "share": 0.5, "when": "2026-01-02T03:04:05"},
        {"id": 2, "text": None, "share": None, "when": None},
    ]
    by_pandas, by_polars = read(pd.DataFrame(columns), key="id"), read(pl.DataFrame(columns), key="id")
    assert [record.fields for record in by_pandas] == wanted
    assert [record.fields for record in by_polars] == wanted
    assert [record.digest for record in by_pandas] == [record.digest for record in by_polars]

    odd = pd.DataFrame(
        {
            "whole": pd.array([1, None], dtype="Int64"),
            "vector": [np.array([1, 2], dtype="int8"), np.float32(0.5)],
            "word": pd.Categorical(["a", "b"]),
            "span": pd.to_timedelta([90, None], unit="s"),
            "moment": [np.datetime64("2026-01-02T03:04:05.000000001"), np.datetime64("NaT")],
            7: [np.str_("x"), np.bool_(True)],
        }
    )
    first, second = read(odd)
    assert first.fields == {
        "whole": 1,
        "vector": [1, 2],
        "word": "a",
        "span": "0:01:30",
        "moment": "2026-01-02T03:04:05.000000001",
        "7": "x",
    }
    assert second.fields == {"whole": None, "vector": 0.5, "word": "b", "span": None, "moment": None, "7": True}
    assert type(second.fields["7"]) is bool


def test_a_frames_columns_of_one_name_are_told_apart() -> None:
    import pandas as pd

    progress = ReadProgress()
    [record] = read(pd.DataFrame([[1, 2, 3]], columns=["1", 1, " "]), progress=progress)
    assert record.fields == {"1": 1, "1_2": 2, "column_3": 3}
    assert "records: two columns are named '1': column 2 is called '1_2'" in progress.format_notes()


def test_a_frames_mistakes_are_told() -> None:
    import polars as pl

    with pytest.raises(InputError, match=r"a LazyFrame is not iterable; .* call collect\(\) first"):
        read(pl.LazyFrame({"a": [1]}))


@pytest.mark.parametrize("given_records", ["text", b"bytes", {"a": 1}, 5, object()])
def test_what_gives_no_records_is_refused(given_records: Any) -> None:
    with pytest.raises(InputError, match=r"^records: a \w+ (is a single object|is not iterable)"):
        iterable_source(given_records)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_mapping_is_that_records_problem_unless_it_is_the_first(kind: str) -> None:
    _, bad, good = read(KINDS[kind]([{"a": 1}, "oops", {"a": 2}]))
    assert bad.problem
    assert bad.problem.message == "records, record 2: a mapping of names to values is needed, but this is a str"
    assert (bad.fields, good.fields) == ({"raw": "'oops'"}, {"a": 2})
    with pytest.raises(InputError, match="record 1: a mapping of names to values is needed, but this is a list"):
        read(KINDS[kind]([[1], {"a": 1}]))


def broken(count: int) -> Iterator[dict[str, int]]:
    for number in range(count):
        yield {"n": number}
    raise KeyError("no more")


async def broken_stream(count: int) -> AsyncIterator[dict[str, int]]:
    for row in broken(count):
        yield row


@pytest.mark.parametrize("make", [broken, broken_stream])
def test_what_raises_says_where_after_what_came_before(make: Callable[[int], Any]) -> None:
    async def main() -> int:
        seen = 0
        try:
            async for batch in read_records([iterable_source(make(300))]):
                seen += len(batch)
        except InputError as error:
            assert str(error).endswith("raised after record 300: KeyError: 'no more'")  # noqa: PT017
            return seen
        return -1

    assert asyncio.run(main()) == 300


def test_an_iterable_is_read_again_and_a_stream_is_not() -> None:
    class Rows:
        def __iter__(self) -> Iterator[dict[str, int]]:
            return iter([{"n": 1}, {"n": 2}])

    again = iterable_source(Rows())
    assert (again.single_pass, again.stamp()) == (False, None)
    assert [record.fields for record in asyncio.run(peek(again, n=1))] == [{"n": 1}]
    stream = iterable_source(streamed([{"n": 1}]))
    assert stream.single_pass
    assert iterable_source(row for row in [{"n": 1}]).single_pass
    with pytest.raises(InputError, match="records: cannot be examined before the run; it can be read only once"):
        asyncio.run(peek(stream))
    gc.collect()


def test_an_endless_iterator_is_read_no_further_than_wanted() -> None:
    taken = []

    def endless() -> Iterator[dict[str, int]]:
        while True:
            taken.append(1)
            yield {"n": len(taken)}

    async def main() -> None:
        async with aclosing(read_records([iterable_source(endless())], batch=10)) as batches:
            seen = 0
            async for batch in batches:
                seen += len(batch)
                await asyncio.sleep(0.001)
                assert len(taken) <= seen + 2 * 256 + 2
                if seen > 5000:
                    break

    asyncio.run(main())


def test_a_slow_iterator_does_not_hold_up_the_loop() -> None:
    gate = threading.Event()

    def slow() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        gate.wait(20)
        yield {"n": 2}

    async def main() -> list[Any]:
        found = []
        async with aclosing(read_records([iterable_source(slow())])) as batches:
            async for batch in batches:
                found += [record.fields["n"] for record in batch]
                gate.set()  # the first came although the second was not there yet
        return found

    assert asyncio.run(main()) == [1, 2]


def test_the_total_is_known_where_the_length_is() -> None:
    progress = ReadProgress()

    async def main() -> int | None:
        async with aclosing(read_records([iterable_source([{"n": 1}] * 700)], progress=progress)) as batches:
            await anext(batches)
        return progress.estimate()

    assert asyncio.run(main()) == 700


class _Odd:
    """What a program may hand over: it raises whatever is done with it."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_cannot_be_had_spoils_its_record_alone(kind: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    rows = [{"text": "a"}, {"text": _Odd()}, {_Odd(): 1}, {"text": deep}, {"text": "b"}]
    progress = ReadProgress()
    records = read(KINDS[kind](rows), progress=progress)

    assert [record.problem and record.problem.code for record in records] == [None, *["unreadable"] * 3, None]
    assert "cannot be read: ZeroDivisionError: no text" in (records[1].problem.message if records[1].problem else "")
    assert progress.format_notes() == []


def test_objects_without_a_text_of_their_own_are_the_same_in_each_process() -> None:
    class Order:
        pass

    first, second = (read([{"order": Order(), "items": {}.items, "at": "<a at 0xff>"}])[0] for _ in range(2))
    assert first.fields["order"] == f"<{__name__}.{Order.__qualname__} object>"
    assert (first.fields["items"], first.fields["at"]) == ("<built-in method items of dict object>", "<a at 0xff>")
    assert first.digest == second.digest


def test_characters_that_were_cut_in_two_are_read_as_their_sign_and_told() -> None:
    progress = ReadProgress()
    [record, other] = read([{"te\ud83dxt": "nice \ud83d", "x": ["\udc00"]}, {"a": "\\ud83d"}], progress=progress)

    assert record.fields == {"te\ufffdxt": "nice \ufffd", "x": ["\ufffd"]}
    assert other.fields == {"a": "\\ud83d"}
    assert progress.format_notes() == ["records: characters that were cut in two are read as \ufffd"]
