"""Outcomes follow their records: through rows put in and taken out, moved, renamed, and back again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from store_samples import labelled, match, record, unlabelled

from pipeline.codec import digest64
from pipeline.records import Answer, Outcome, Record, Response, SavedAnswer, Status, Usage
from pipeline.store import Ledger, MatchCounts


def placed(texts: Sequence[str]) -> list[Record]:
    """Records that are named by their place, one a line."""
    return [
        Record("in.txt", at, f"in.txt:{at + 1}", {"text": text}, at + 1, digest64(text.encode()))
        for at, text in enumerate(texts)
    ]


def outcome(one: Record) -> Outcome:
    """The record with its text as its label: so it can be seen whose label it has."""
    return replace(labelled(0, f"label of {one.fields['text']}"), record=one)


async def rows(ledger: Ledger) -> list[tuple[str, str, str]]:
    """Key, text and label of all outcomes, in the input's order."""
    found = [one for _, one in await ledger.rows_in_order()]
    return [(one.record.key, one.record.fields["text"], (one.label or {}).get("label", "")) for one in found]


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=7), min_size=2, max_size=4))
def test_each_record_keeps_its_own_label_through_any_edits(inputs: list[list[str]]) -> None:
    """Whatever is put in, taken out, moved or doubled: nothing is labelled twice, and a label is its text's own."""

    async def main(path: Path) -> None:
        asked: Counter[str] = Counter()
        async with await Ledger.open(path) as ledger:
            for texts in inputs:
                records = placed(texts)
                found = await match(ledger, records)
                known = await ledger.known([one.key for one in records])
                new = [one for one in records if one.key not in known]
                # One that was never labelled may stand where another stood: that is asked, and not followed.
                assert len(new) == found.fresh + found.changed
                await ledger.commit([outcome(one) for one in new])
                asked.update(one.fields["text"] for one in new)
                assert await rows(ledger) == [
                    (one.key, one.fields["text"], f"label of {one.fields['text']}") for one in records
                ]
                assert (await ledger.totals()).attempts == sum(asked.values()), "what was paid stays counted"

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder) / "ledger.db"))


def test_a_row_that_is_put_in_is_the_only_one_that_is_new(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([outcome(one) for one in placed(["a", "b", "b"])])
            await ledger.keep_answers([SavedAnswer("in.txt:1", 0, b"", Response(Answer(), Usage(), "m"), 1, 0.0)])
            found = await match(ledger, placed(["new", "a", "b", "b"]))
            assert found == MatchCounts(renamed=2, fresh=1, stays=3), "in.txt:3 holds what it held"
            assert await rows(ledger) == [
                ("in.txt:2", "a", "label of a"),
                ("in.txt:3", "b", "label of b"),
                ("in.txt:4", "b", "label of b"),
            ]
            moved = (await ledger.outcomes_of(["in.txt:2"]))["in.txt:2"]
            assert moved.asked_as == "in.txt:1", "callbacks know it by the name that it was asked under"
            assert list(await ledger.answers_of(["in.txt:1", "in.txt:2"])) == ["in.txt:2"]
            await match(ledger, placed(["newer", "new", "a", "b", "b"]))
            assert (await ledger.outcomes_of(["in.txt:3"]))["in.txt:3"].asked_as == "in.txt:1"

    asyncio.run(main())


def test_what_is_gone_costs_nothing_when_it_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([outcome(one) for one in placed(["a", "b", "c"])])
            assert await match(ledger, placed(["a", "c"])) == MatchCounts(
                gone=1, gone_keys=("in.txt:2",), renamed=1, stays=2
            )
            assert sum((await ledger.count_by_status()).values()) == 2
            found = await match(ledger, placed(["a", "c", "b"]))
            assert (found.back, found.fresh, found.gone) == (1, 0, 0)
            assert [text for _, text, _ in await rows(ledger)] == ["a", "c", "b"]
            assert (await ledger.totals()).archived == 0

    asyncio.run(main())


def test_a_changed_record_is_asked_about_where_it_has_a_label_and_asked_again_where_not(tmp_path: Path) -> None:
    async def main(name: str, *, keep: bool) -> None:
        async with await Ledger.open(tmp_path / name) as ledger:
            await ledger.commit([labelled(0), unlabelled(1), unlabelled(2), labelled(3)])
            edited = [replace(record(at), fields={"id": f"r{at}", "text": "new"}, digest=at) for at in range(3)]
            found = await match(ledger, [*edited, record(3)], keep=keep)
            assert (found.changed, found.changed_keys, found.fixed) == (1, ("r0",), 2)
            assert set(await ledger.known([f"r{at}" for at in range(4)])) == ({"r0", "r3"} if keep else {"r3"})
            if keep:
                kept = (await ledger.outcomes_of(["r0"]))["r0"]
                assert kept.record.fields == record(0).fields, "its row goes on to show what was labelled"
                assert not (await match(ledger, [*edited, record(3)])).changed, "nobody is asked about it again"

    asyncio.run(main("relabel.db", keep=False))
    asyncio.run(main("keep.db", keep=True))


def test_digests_of_an_older_version_are_not_believed(tmp_path: Path) -> None:
    """The same digest may have been another record's then; the same fields are the same."""

    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([labelled(0), labelled(1)])
            records = [replace(record(0), fields={"text": "other"}), replace(record(1), digest=5)]
            found = await match(ledger, records, trust=False)
            assert (found.changed_keys, found.stays) == (("r0",), 1)

    asyncio.run(main())


def test_matching_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """A kill in its middle leaves the ledger as it was; nothing of it is seen before its end by who only looks."""

    async def main() -> None:
        path = tmp_path / "ledger.db"
        async with await Ledger.open(path) as ledger:
            await ledger.commit([outcome(one) for one in placed(["a", "b"])])
            before = await rows(ledger)
            await ledger.match_begin()
            await ledger.match_add(placed(["new", "a"]), trust=True)
            await ledger.match_by_content(trust=True)
            assert await rows(ledger) == before
        async with await Ledger.open(path, read_only=True) as looking:
            await looking.match_begin()
            await looking.match_add(placed(["new", "a"]), trust=True)
            await looking.match_by_content(trust=True)
            assert (await looking.match_counts()).renamed == 1, "who may not write can tell what would come of it"
            assert (await looking.count_by_status())[Status.LABELLED] == 2

    asyncio.run(main())
