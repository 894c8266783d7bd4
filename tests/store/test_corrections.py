"""What people say wins in every file of rows; it survives kills, relabelling, and an input that changes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from store_samples import labelled, read_csv, record, unlabelled
from store_sessions import BATCHES, LAYOUT, OUTCOMES, labels, run

from pipeline.errors import SetupError, StoreError
from pipeline.records import Outcome
from pipeline.store import (
    Answer,
    Layout,
    Ledger,
    RunDir,
    Selection,
    Sinks,
    SqlTarget,
    export_table,
    label_digest,
    open_reviews,
    prove_files,
    read_table,
    retraction,
)
from pipeline.store.sqlexport import compare_table

FORMATS = ("csv", "jsonl", "parquet")


def correct(path: Path, outcome: Outcome, value: str | None, by: str = "ann", **more: Any) -> Answer:
    """A person's answer about the outcome: another value, or None for "as it is"."""
    new = None if value is None else {"label": value}
    answer = Answer(
        outcome.record.key,
        by,
        label_digest(outcome.label),
        old=outcome.label,
        new=new,
        record=outcome.record.digest,
        request=outcome.request_digest,
    )
    with open_reviews(path) as reviews:
        return reviews.add_answers([replace(answer, **more)])[0]


def proofs(path: Path) -> dict[str, tuple[bool, str]]:
    async def prove() -> dict[str, tuple[bool, str]]:
        async with await Ledger.open(path / "ledger.db", read_only=True) as ledger:
            return {one.name: (one.ok, one.detail) for one in await prove_files(RunDir(path), ledger)}

    return asyncio.run(prove())


def told(path: Path) -> str:
    """The line about corrections, where all files are proved."""
    found = proofs(path)
    assert all(ok for ok, _ in found.values()), found
    return found["corrections"][1]


@pytest.mark.parametrize("order", ["completion", "input"])
def test_a_correction_is_in_every_file_after_the_next_session(tmp_path: Path, order: str) -> None:
    layout = replace(LAYOUT, formats=FORMATS, order=order)
    run(tmp_path, *BATCHES, layout=layout)
    correct(tmp_path, OUTCOMES[2], "right")
    assert told(tmp_path) == (
        "1 correction, not all in the rows yet: the end of the session, or the next session, writes them."
    )
    run(tmp_path, layout=layout)
    wanted = ["right" if outcome is OUTCOMES[2] else "a\n,b" for outcome in OUTCOMES if outcome.label]
    assert labels(tmp_path, "label") == wanted
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == wanted
    assert pyarrow.parquet.read_table(tmp_path / "labels.parquet")["label"].to_pylist() == wanted
    titles, _, rows = asyncio.run(read_table(tmp_path))
    assert rows[2][titles.index("label")] == "right"
    found = proofs(tmp_path)
    assert found["labels.csv"] == (True, "10 rows, identical to the ledger with the corrections.")
    assert found["labels.parquet"] == (True, "10 rows, value for value those of the ledger with the corrections.")
    assert told(tmp_path) == "1 correction, all in the rows."
    assert not list(tmp_path.glob("*.changed-*"))


def test_a_row_that_was_written_before_is_corrected_when_the_session_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, LAYOUT)
            await files.write(OUTCOMES[:3], await ledger.commit(OUTCOMES[:3], files.checkpoints()))
            correct(tmp_path, OUTCOMES[0], "early")
            correct(tmp_path, OUTCOMES[4], "before it was answered")
            assert all(proof.ok for proof in await prove_files(RunDir(tmp_path), ledger))
            await files.write(OUTCOMES[3:], await ledger.commit(OUTCOMES[3:], files.checkpoints()))
            await files.finish()

    asyncio.run(work())
    assert labels(tmp_path, "label")[:4] == ["early", "a\n,b", "a\n,b", "before it was answered"]
    assert told(tmp_path) == "2 corrections, all in the rows."


def test_a_new_answer_does_not_overwrite_a_correction(tmp_path: Path) -> None:
    """Whatever makes the outcome anew (replay, relabel, retry), the person's value stays; one taken back does not."""
    run(tmp_path, *BATCHES)
    kept = correct(tmp_path, OUTCOMES[0], "mine")
    correct(tmp_path, OUTCOMES[2], None)  # right as it is: that is kept too

    async def again(ledger: Ledger) -> None:
        await ledger.replace([replace(OUTCOMES[0], label={"label": "replayed"})], "replay")
        await ledger.archive(Selection(keys=["r2"]), "relabel")

    other = replace(OUTCOMES[2], label={"label": "relabelled"}, request_digest=b"another prompt..")
    run(tmp_path, [other], before=again)
    rows = {row["id"]: row["label"] for row in read_csv(tmp_path / "labels.csv")}
    assert (rows["r0"], rows["r2"], rows["r3"]) == ("mine", "a\n,b", "a\n,b")
    assert told(tmp_path) == "2 corrections, all in the rows."
    run(tmp_path)
    assert told(tmp_path) == "2 corrections, all in the rows."
    with open_reviews(tmp_path) as reviews:
        reviews.add_answers([retraction(kept, "ann")])
    run(tmp_path)
    rows = {row["id"]: row["label"] for row in read_csv(tmp_path / "labels.csv")}
    assert (rows["r0"], rows["r2"]) == ("replayed", "a\n,b")
    assert told(tmp_path) == "1 correction, all in the rows."


def test_a_person_labels_a_record_without_a_label(tmp_path: Path) -> None:
    """It becomes a row, and failed.csv loses it; its columns come with it."""
    failed = unlabelled(1)
    failed = replace(failed, record=replace(failed.record, fields={"id": "r1", "only": 5}))
    run(tmp_path, [labelled(0), failed, unlabelled(2)])
    correct(tmp_path, failed, "by hand")
    run(tmp_path)
    assert [(row["id"], row["only"], row["label"]) for row in read_csv(tmp_path / "labels.csv")] == [
        ("r0", "", "positive"),
        ("r1", "5", "by hand"),
    ]
    assert [row["key"] for row in read_csv(tmp_path / "failed.csv")] == ["r2"]
    assert told(tmp_path) == "1 correction, all in the rows."


def test_a_column_says_who_reviewed_a_row_where_that_is_asked_for(tmp_path: Path) -> None:
    layout = replace(LAYOUT, reviewed=True)
    run(tmp_path, *BATCHES, layout=layout)
    correct(tmp_path, OUTCOMES[0], "mine", by="ann")
    correct(tmp_path, OUTCOMES[2], None, by="=bob")
    correct(tmp_path, OUTCOMES[3], "x", by="eve", new={}, unclear=True)
    run(tmp_path, layout=layout)
    assert labels(tmp_path, "reviewed")[:4] == ["ann", "=bob", "", ""]
    run(tmp_path)
    assert "reviewed" not in read_csv(tmp_path / "labels.csv")[0]
    assert told(tmp_path) == "1 correction, all in the rows; 1 label was confirmed."


def test_a_correction_follows_its_record_to_another_key(tmp_path: Path) -> None:
    """Without input.key a record is named by its place: a line that is put above it gives it another name."""
    run(tmp_path, [labelled(0), labelled(1), labelled(2)])
    correct(tmp_path, labelled(1), "mine")

    async def moved(ledger: Ledger) -> None:
        await ledger.match_begin()
        for number in range(3):
            at = replace(record(number), key=f"r{number + 1}", ordinal=number + 1)
            await ledger.match_add([at], trust=True)
        await ledger.match_by_content(trust=True)
        await ledger.match_apply(keep=False)

    run(tmp_path, [labelled(0, fields={"id": "new"})], before=moved)
    rows = {row["id"]: row["label"] for row in read_csv(tmp_path / "labels.csv")}
    assert rows == {"r0": "positive", "r1": "mine", "r2": "positive", "new": "positive"}
    assert told(tmp_path) == "1 correction, all in the rows."


def test_a_correction_of_another_text_is_not_applied_and_told(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), labelled(1)])
    correct(tmp_path, labelled(0), "mine")
    correct(tmp_path, labelled(1), "gone")

    async def changed(ledger: Ledger) -> None:
        await ledger.archive(Selection(keys=["r0", "r1"]), "relabel")

    new = labelled(0, request_digest=b"another text....")
    run(tmp_path, [replace(new, record=replace(new.record, digest=7))], before=changed)
    assert labels(tmp_path, "label") == ["positive"]
    assert told(tmp_path) == (
        "2 corrections, 0 in the rows; r0: the record has changed since; r1: the record has no outcome now."
    )


def test_a_record_of_several_rows_is_left_as_it_is(tmp_path: Path) -> None:
    several = replace(labelled(0), rows=({"label": "a"}, {"label": "b"}))
    run(tmp_path, [several])
    correct(tmp_path, several, "mine")
    run(tmp_path)
    assert labels(tmp_path, "label") == ["a", "b"]
    assert told(tmp_path) == "1 correction, 0 in the rows; r0: the record has several rows now."


def test_the_table_in_a_database_is_corrected_too(tmp_path: Path) -> None:
    layout = replace(LAYOUT, formats=("sql",))

    async def named(ledger: Ledger) -> None:
        await ledger.run_id()

    run(tmp_path, [labelled(0), unlabelled(1)], layout=layout, before=named)
    target, ledger = SqlTarget(f"sqlite:///{tmp_path}/out.db", "labels"), tmp_path / "ledger.db"
    export_table(target, ledger, whole=True)
    correct(tmp_path, labelled(0), "mine")
    correct(tmp_path, unlabelled(1), "by hand")
    assert "older than the ledger's rows" in compare_table(target, ledger).detail
    done = export_table(target, ledger, whole=True)
    assert (done.rows, done.added, done.updated) == (2, 1, 1)
    assert compare_table(target, ledger).detail == "2 rows, value for value those of the ledger."
    assert compare_table(target, ledger).ok


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("order", ["completion", "input"])
def test_a_session_that_dies_while_it_writes_corrections_loses_nothing(
    tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at each step that touches the disk in turn, with a further answer before the next session."""
    from pipeline.store import projection, rundir, sinks

    layout = replace(LAYOUT, formats=("csv", "jsonl"), order=order)
    run(tmp_path, *BATCHES, layout=layout)
    real, left = rundir.replace_durably, [0]

    class DeadError(BaseException):
        pass

    def dies(part: Path, path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise DeadError
        real(part, path)
        if left[0] == 0:
            raise DeadError

    for module in (projection, sinks):
        monkeypatch.setattr(module, "replace_durably", dies)
    for number in range(8):
        correct(tmp_path, OUTCOMES[0], f"value {number}")
        left[0] = number // 2
        with suppress(DeadError):
            run(tmp_path, layout=layout)
    left[0] = 99
    run(tmp_path, layout=layout)
    assert labels(tmp_path, "label")[0] == "value 7"
    assert told(tmp_path) == "1 correction, all in the rows."
    assert not list(tmp_path.glob("*.changed-*"))


def test_a_run_that_nobody_has_reviewed_is_as_it_was(tmp_path: Path) -> None:
    """No file, no further text in the ledger: an earlier version reads it too."""
    run(tmp_path, *BATCHES)
    assert not (tmp_path / "reviews.db").exists()
    assert "corrections" not in proofs(tmp_path)

    async def texts() -> tuple[str | None, list[str]]:
        async with await Ledger.open(tmp_path / "ledger.db", read_only=True) as ledger:
            return await ledger.meta_get("layout"), [one.shape for one in (await ledger.checkpoints()).values()]

    layout, shapes = asyncio.run(texts())
    assert layout is not None
    assert "corrected" not in layout
    assert all(len(json.loads(shape)) == 4 for shape in shapes)
    assert Layout.from_text(layout).corrected == 0


def test_reviews_that_are_damaged_or_gone_are_told_and_stop_a_session(tmp_path: Path) -> None:
    """Going on without them would take people's answers out of the rows, and nobody would hear of it."""
    run(tmp_path, *BATCHES)
    correct(tmp_path, OUTCOMES[0], "mine")
    run(tmp_path)
    path = tmp_path / "reviews.db"
    good = path.read_bytes()
    for damage, message in ((good[:100] + b"x" * len(good), "reviews.db: "), (None, "is gone, and the rows")):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        ok, detail = proofs(tmp_path)["reviews.db"]
        assert not ok
        assert message in detail
        with pytest.raises((SetupError, StoreError)):
            run(tmp_path)
        assert labels(tmp_path, "label")[0] == "mine"
    path.touch()
    run(tmp_path)
    assert labels(tmp_path, "label")[0] != "mine"


def test_corrections_count_in_the_distribution_of_labels(tmp_path: Path) -> None:
    """A record without a label counts once a person has given it one, and a value that nobody has any more is gone."""
    outcomes = [replace(labelled(number), label={"label": "ab"[number == 0]}) for number in range(12)]

    async def work() -> dict[str, dict[str, int]]:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([*outcomes, unlabelled(12)])
            assert await ledger.label_counts(["label"]) == {"label": {"a": 11, "b": 1}}
            correct(tmp_path, outcomes[0], "c")
            correct(tmp_path, outcomes[1], None)
            correct(tmp_path, unlabelled(12), "c")
            assert await ledger.label_counts(["label"]) == {"label": {"a": 11, "c": 2}}
            (tmp_path / "reviews.db").write_bytes(b"damaged " * 100)
            return await ledger.label_counts(["label"])

    assert asyncio.run(work()) == {"label": {"a": 11, "b": 1}}, "verify tells of the damage; a look shows the rest"
