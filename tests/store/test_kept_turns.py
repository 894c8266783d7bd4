"""Answers that are kept before their record is at its end, and outcomes of several rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from store_samples import OUTCOMES, TEXTS, VALUES, labelled, read_csv, unlabelled

from pipeline.records import Answer, Outcome, Response, SavedAnswer, Status, ToolCall, Usage
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks, prove_files
from pipeline.store.rows import to_outcome, to_row

_T = TypeVar("_T")

RESULTS = st.lists(
    st.fixed_dictionaries({"extra": st.dictionaries(TEXTS, VALUES, max_size=2), "result": VALUES}), max_size=2
)
KEPT = st.builds(
    SavedAnswer,
    key=TEXTS,
    number=st.integers(0, 9),
    request_digest=st.binary(min_size=16, max_size=16),
    response=st.builds(
        Response,
        st.builds(
            Answer,
            st.lists(st.builds(ToolCall, TEXTS, TEXTS, TEXTS), max_size=2).map(tuple),
            st.none() | TEXTS,
            items=st.lists(st.dictionaries(TEXTS, VALUES, max_size=2), max_size=2).map(tuple),
        ),
        st.builds(Usage, *[st.integers(0, 2**40)] * 5),
        TEXTS,
        st.none() | TEXTS,
        st.floats(0, 1e6),
        cost_usd=st.none() | st.floats(0, 1e6),
    ),
    calls=st.integers(0, 99),
    at=st.floats(0, 1e10),
    fault=st.none() | st.sampled_from(["invalid_label", "truncated"]),
    results=RESULTS.map(tuple),
    repairs=st.integers(0, 9),
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=3).map(tuple)


def with_ledger(folder: Path, work: Callable[[Ledger], Awaitable[_T]]) -> _T:
    async def main() -> _T:
        async with await Ledger.open(folder / "ledger.db") as ledger:
            return await work(ledger)

    return asyncio.run(main())


def kept(key: str = "r0", number: int = 0, results: int = 0, digest: bytes = b"d" * 16) -> SavedAnswer:
    answer = Answer((ToolCall("c", "look", f'{{"turn":{number}}}'),))
    done = tuple({"extra": {}, "result": place} for place in range(results))
    response = Response(answer, Usage(8, 2), "m", "req", 0.1, cost_usd=0.25)
    return SavedAnswer(key, number, digest, response, 1, 1.0, results=done)


# -- kept answers ----------------------------------------------------------------------------------------------------


@given(st.lists(KEPT, max_size=4, unique_by=lambda one: (one.key, one.number)))
def test_answers_come_back_as_they_were(tmp_path_factory: Any, answers: list[SavedAnswer]) -> None:
    async def work(ledger: Ledger) -> None:
        assert not await ledger.has_answers()
        for one in sorted(answers, key=lambda one: one.number):
            await ledger.keep_answers([one])
        wanted: dict[str, list[SavedAnswer]] = {}
        for one in sorted(answers, key=lambda one: one.number):
            wanted.setdefault(one.key, []).append(one)
        assert await ledger.answers_of([one.key for one in answers]) == wanted
        assert await ledger.has_answers() == bool(answers)

    with_ledger(tmp_path_factory.mktemp("turns"), work)


def test_an_answer_takes_the_place_of_itself_and_of_what_followed_another_one(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.keep_answers([kept(number=0, results=1), kept("r1")])
        await ledger.keep_answers([kept(number=1)])
        await ledger.keep_answers([kept(number=1, results=1)])
        assert (await ledger.answers_of(["r0"]))["r0"] == [kept(number=0, results=1), kept(number=1, results=1)]
        begun_anew = kept(number=0, digest=b"n" * 16)
        await ledger.keep_answers([begun_anew])
        assert await ledger.answers_of(["r0", "r1"]) == {"r0": [begun_anew], "r1": [kept("r1")]}

    with_ledger(tmp_path, work)


def test_answers_are_dropped_with_an_outcome_that_is_done_with_them(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.keep_answers([kept("r0"), kept("r1")])
        await ledger.commit([labelled(0)])
        assert (await ledger.answers_of(["r0"])).keys() == {"r0"}, "a replay reads it"
        await ledger.commit([labelled(1)], done_with=["r1"])
        assert await ledger.answers_of(["r1"]) == {}

    with_ledger(tmp_path, work)


def test_what_is_asked_again_begins_anew_and_what_is_read_again_does_not(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.keep_answers([kept(f"r{number}") for number in range(4)])
        await ledger.commit([labelled(0), unlabelled(1, "unfinished", Status.REJECTED), unlabelled(2), labelled(3)])
        await ledger.replace([labelled(3, "negative")], "replay")
        assert (await ledger.answers_of(["r3"])).keys() == {"r3"}
        await ledger.archive(Selection(codes=frozenset({"unfinished"})), "retry")
        assert (await ledger.answers_of(["r0", "r1", "r2", "r3"])).keys() == {"r0", "r2", "r3"}
        # Its next answer never came: it goes on where it was, and what it has cost is counted with the outcome.
        before = await ledger.totals()
        await ledger.archive(Selection(keys=["r2"]), "retry")
        left = (await ledger.answers_of(["r2"]))["r2"]
        assert [(one.response.usage, one.response.cost_usd, one.calls) for one in left] == [(Usage(), 0.0, 0)]
        assert (await ledger.totals()).usage == before.usage
        await ledger.archive(Selection(), "relabel")
        assert (await ledger.answers_of(["r0", "r1", "r2", "r3"])).keys() == {"r2"}  # the engine looks at it

    with_ledger(tmp_path, work)


def test_what_kept_answers_have_cost_counts_until_their_record_has_an_outcome(tmp_path: Path) -> None:
    """From then on it is in the outcome: nothing is left out, and nothing counted twice."""

    async def work(ledger: Ledger) -> None:
        unpriced = replace(kept("r1"), response=replace(kept().response, cost_usd=None))
        await ledger.keep_answers([kept("r0"), kept("r0", 1), unpriced])
        totals = await ledger.totals()
        assert (totals.usage, totals.unpriced_usage) == (Usage(24, 6), Usage(8, 2))
        assert (totals.cost_usd, totals.unpriced) == (0.5, 0)
        await ledger.commit([replace(labelled(0), usage=Usage(16, 4), cost_usd=0.5)])
        totals = await ledger.totals()
        assert (totals.usage, totals.unpriced_usage, totals.cost_usd) == (Usage(24, 6), Usage(8, 2), 0.5)
        await ledger.commit([replace(unlabelled(1), usage=Usage(8, 2), cost_usd=0.125)])
        await ledger.archive(Selection(keys=["r1"]), "retry")
        totals = await ledger.totals()
        assert (totals.usage, totals.unpriced_usage, totals.cost_usd) == (Usage(24, 6), Usage(), 0.625)

    with_ledger(tmp_path, work)


def test_answers_of_many_records_are_found_in_one_go(tmp_path: Path) -> None:
    keys = [f"r{number}" for number in range(700)]

    async def work(ledger: Ledger) -> None:
        await ledger.keep_answers([kept(key) for key in keys])
        assert (await ledger.answers_of(keys)).keys() == set(keys)
        await ledger.commit([unlabelled(1)], done_with=keys[1:])
        assert (await ledger.answers_of(keys)).keys() == {"r0"}

    with_ledger(tmp_path, work)


# -- rows ------------------------------------------------------------------------------------------------------------


@given(OUTCOMES, st.none() | ROWS)
def test_rows_come_back_as_they_were(outcome: Outcome, rows: Any) -> None:
    outcome = replace(outcome, rows=None if outcome.label is None else rows)
    assert to_outcome(to_row(1, outcome)) == outcome


def several(number: int, *names: str, **common: Any) -> Outcome:
    rows = tuple({"row_key": f"r{number}#{place}", "name": name} for place, name in enumerate(names))
    return replace(labelled(number, {"lang": "en", **common}), rows=rows)


FORMATS = ("csv", "jsonl", "parquet")
LAYOUT = Layout(labels=("row_key", "lang", "name"), columns=("id",), fixed=True, formats=FORMATS)
STORY = [several(0, "Osei", "Kumasi"), several(1), several(2, "a, b", 'c "d"', "e\nf", added=1), unlabelled(3)]


async def write(folder: Path, ledger: Ledger, *batches: list[Outcome], layout: Layout = LAYOUT) -> None:
    sinks = await Sinks.start(RunDir(folder), ledger, layout)
    for batch in batches:
        await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
    await sinks.finish()
    await sinks.close()


def test_every_format_has_a_line_a_row_and_the_proof_counts_rows(tmp_path: Path) -> None:
    import json

    import pyarrow.parquet

    async def work(ledger: Ledger) -> None:
        await write(tmp_path, ledger, STORY[:2], STORY[2:])
        proofs = {proof.name: (proof.ok, proof.rows) for proof in await prove_files(RunDir(tmp_path), ledger)}
        assert proofs == {
            "labels.csv": (True, 5),
            "labels.jsonl": (True, 5),
            "labels.parquet": (True, 5),
            "failed.csv": (True, 1),
        }

    with_ledger(tmp_path, work)
    rows = read_csv(tmp_path / "labels.csv")
    assert [row["row_key"] for row in rows] == ["r0#0", "r0#1", "r2#0", "r2#1", "r2#2"]
    assert [row["name"] for row in rows] == ["Osei", "Kumasi", "a, b", 'c "d"', "e\nf"]
    assert [row["added"] for row in rows] == ["", "", "1", "1", "1"], "a column that came later"
    assert {row["lang"] for row in rows} == {"en"}
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_bytes().splitlines()]
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    assert pyarrow.parquet.read_table(tmp_path / "labels.parquet").column("name").to_pylist() == [
        row["name"] for row in rows
    ]


def test_a_file_cut_in_the_middle_of_a_records_rows_is_made_whole(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await write(tmp_path, ledger, STORY[:2])
        for name in ("labels.csv", "labels.jsonl"):
            whole = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(whole[: len(whole) - 9])
        proofs = {proof.name: proof for proof in await prove_files(RunDir(tmp_path), ledger)}
        assert not proofs["labels.csv"].ok
        await write(tmp_path, ledger, STORY[2:])
        assert all(proof.ok for proof in await prove_files(RunDir(tmp_path), ledger))

    with_ledger(tmp_path, work)
    assert len(read_csv(tmp_path / "labels.csv")) == 5


def test_rows_in_the_inputs_order(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        layout = replace(LAYOUT, order="input")
        await write(tmp_path, ledger, [STORY[2], STORY[3]], [STORY[1], STORY[0]], layout=layout)
        assert all(proof.ok for proof in await prove_files(RunDir(tmp_path), ledger))

    with_ledger(tmp_path, work)
    assert [row["row_key"] for row in read_csv(tmp_path / "labels.csv")] == ["r0#0", "r0#1", "r2#0", "r2#1", "r2#2"]
