"""The proof of a run finds what is wrong, and only that."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SetupError
from pipeline.records import Outcome, Problem, Record, Status
from pipeline.results import Report, verify
from pipeline.store import Layout, Ledger, RunDir, Selection, Sinks

LAYOUT = Layout(labels=("label",), formats=("csv", "jsonl", "parquet"))


def record(number: int) -> Record:
    return Record(
        "in.csv", number, f"r{number}", {"id": f"r{number}", "text": 'a "b",\n' * (number % 3)}, number + 2, 1
    )


def outcome(number: int) -> Outcome:
    """Every fifth record failed, every seventh was rejected, the rest have a label."""
    if number % 5 == 0:
        return Outcome(record(number), Status.FAILED, problem=Problem("timeout", "no answer in 60 s"))
    if number % 7 == 0:
        return Outcome(record(number), Status.REJECTED, problem=Problem("refused", "declined"))
    return Outcome(record(number), Status.LABELLED, label={"label": "positive"})


OUTCOMES = [outcome(number) for number in range(40)]
COUNTS = {"labelled": 28, "rejected": 4, "failed": 8}


async def make(path: Path, *, finish: bool = True, layout: Layout = LAYOUT) -> None:
    run_dir = RunDir(path)
    run_dir.write_manifest({"simulated": True})
    async with await Ledger.open(run_dir.ledger) as ledger:
        sinks = await Sinks.start(run_dir, ledger, layout)
        for batch in (OUTCOMES[:15], OUTCOMES[15:]):
            await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
        if finish:
            await sinks.finish()
            run_dir.write_summary(COUNTS | {"ended": "complete"})
        await sinks.close()


def looked_at(path: Path, keys: Sequence[Sequence[str]] | None = None) -> Report:
    async def batches() -> AsyncIterator[Sequence[Record]]:
        for batch in keys or ():
            yield [_named(key) for key in batch]

    return asyncio.run(verify(RunDir(path), records=None if keys is None else batches()))


def _named(key: str) -> Record:
    """The record of this name, as it was when it was labelled."""
    return record(int(key[1:])) if key[1:].isdigit() else replace(record(0), key=key)


def bad(report: Report) -> list[str]:
    return [check.name for check in report.checks if not check.ok]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    asyncio.run(make(tmp_path))
    return tmp_path


def test_a_sound_run_is_verified(run: Path) -> None:
    report = looked_at(run, [[f"r{number}" for number in range(25)], [f"r{number}" for number in range(25, 50)]])
    assert report.ok
    assert report.counts == COUNTS | {"rows_in": 50, "pending": 10, "orphans": 0}
    assert report.lines() == [
        "ok   manifest.json   readable. SIMULATED LABELS.",
        "ok   ledger.db       sound; 40 keys, each once.",
        "ok   labels.csv      28 rows, identical to the ledger.",
        "ok   labels.jsonl    28 rows, identical to the ledger.",
        "ok   failed.csv      12 rows, identical to the ledger.",
        "ok   labels.parquet  28 rows, value for value those of the ledger.",
        "ok   summary.json    the counts match the ledger.",
        "ok   rows in         50 = 28 labelled + 4 rejected + 8 failed + 10 pending.",
        f"{run}: verified.",
    ]
    assert report.as_dict()["checks"][0] == {
        "name": "manifest.json",
        "ok": True,
        "detail": "readable. SIMULATED LABELS.",
    }


def test_what_is_not_in_the_input_any_more_is_counted(run: Path) -> None:
    report = looked_at(run, [["r1", "r2", "new"]])
    assert report.ok
    assert report.counts == COUNTS | {"rows_in": 3, "pending": 1, "orphans": 38}
    assert "38 more outcomes belong to records that are not in the input" in report.lines()[-2]


def test_a_key_that_comes_twice_is_no_account(run: Path) -> None:
    report = looked_at(run, [["r1", "r2", "r1"], ["r2"]])
    assert bad(report) == ["rows in"]
    assert "2 KEYS CAME TWICE" in report.lines()[-2]


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "failed.csv", "labels.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "add", "double", "delete"])
def test_a_file_that_is_not_the_ledgers_is_found(run: Path, name: str, damage: str) -> None:
    path = run / name
    data = path.read_bytes()
    half = data.index(b"\n", len(data) // 2) + 1
    line = data[data.rindex(b"\n", 0, half - 1) + 1 : half]
    changed = {
        "flip": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        "cut": data[:half],
        "add": data + line,
        "double": data[:half] + line + data[half:],
    }
    path.unlink() if damage == "delete" else path.write_bytes(changed[damage])
    if name == "labels.parquet" and damage in ("flip", "double"):
        path.write_bytes(data[:4] + b"\0" * 64 + data[68:])
    report = looked_at(run)
    assert bad(report) == [name]
    assert report.lines()[-1] == f"{run}: NOT verified: 1 of 7 are bad."


def test_a_parquet_file_with_another_value_is_found(run: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(run / "labels.parquet").to_pylist()
    table[20]["label"] = "negative"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), run / "labels.parquet")
    (check,) = [check for check in looked_at(run).checks if not check.ok]
    assert check.detail.startswith("differs from the ledger in row 21 (r31).")


def test_a_file_that_a_person_saved_again_is_told_by_its_rows(run: Path) -> None:
    """Correct a label, delete a row, add one, save with a spreadsheet's quotes, mark, ends of lines and delimiter."""
    rows = list(csv.reader(io.StringIO((run / "labels.csv").read_text(encoding="utf-8"), newline="")))
    resaved: dict[str, dict[str, Any]] = {
        "\n": {"quoting": csv.QUOTE_ALL},
        "\r\n": {"delimiter": ";"},
        "\r": {"delimiter": "\t"},
    }
    edited = [*rows[:5], [*rows[5][:2], "corrected"], *rows[7:], ["mine", "", "positive"]]
    for end, form in resaved.items():
        for these, told in (
            (rows, "Its rows have the ledger's values: it was written again by another program."),
            (edited, f"1 row has other values ({rows[5][0]}); 1 row is missing ({rows[6][0]}); 1 row is in no ledger."),
            ([["x"], *rows[1:]], "Its columns are others."),
        ):
            text = io.StringIO()
            csv.writer(text, lineterminator=end, **form).writerows(these)
            (run / "labels.csv").write_bytes(text.getvalue().encode("utf-16" if end == "\r" else "utf-8-sig"))
            (check,) = [check for check in looked_at(run).checks if not check.ok]
            assert told in check.detail
    lines = (run / "labels.jsonl").read_bytes().splitlines(keepends=True)
    (run / "labels.jsonl").write_bytes(b"".join([b"{}\n", *lines[2:]]).replace(b":", b": "))
    details = [check.detail for check in looked_at(run).checks if check.name == "labels.jsonl"]
    assert "1 row has other values (r1); 1 row is missing (r2)." in details[0]


def test_an_outcome_is_its_own_records_by_the_content_and_not_by_the_name(run: Path) -> None:
    """A row was put in at the top since: the names are other records' now."""

    async def batches() -> AsyncIterator[Sequence[Record]]:
        same = replace(record(1), digest=7)  # other white space, say
        yield [same, replace(record(2), fields={"id": "r1", "text": ""}, digest=8), record(3)]

    report = asyncio.run(verify(RunDir(run), records=batches()))
    assert bad(report) == ["rows in"]
    assert "1 ARE DIFFERENT NOW from when they were labeled (r2)" in report.lines()[-2]


def test_a_summary_that_disagrees_is_found(run: Path) -> None:
    RunDir(run).write_summary(COUNTS | {"labelled": 29})
    report = looked_at(run)
    assert bad(report) == ["summary.json"]
    assert "says labelled 29, the ledger has 28." in report.lines()[-2]


def test_a_manifest_that_is_missing_or_broken_is_found(run: Path) -> None:
    for change in (lambda path: path.write_text("{"), Path.unlink):
        change(run / "manifest.json")
        assert bad(looked_at(run)) == ["manifest.json"]


def test_a_damaged_ledger_is_found(run: Path) -> None:
    data = bytearray((run / "ledger.db").read_bytes())
    page = data.index(b"no answer in 60 s") // 4096 * 4096
    data[page : page + 200] = b"\xff" * 200
    (run / "ledger.db").write_bytes(data)
    assert "ledger.db" in bad(looked_at(run))


def test_a_killed_run_is_verified_as_far_as_it_came(tmp_path: Path) -> None:
    """The rows that the kill kept from the files are in the ledger, and a torn one is the beginning of its row."""
    asyncio.run(make(tmp_path, finish=False))
    for name in ("labels.csv", "failed.csv"):
        with (tmp_path / name).open("r+b") as file:
            file.truncate((tmp_path / name).stat().st_size - 30)
    report = looked_at(tmp_path, [[f"r{number}" for number in range(50)]])
    assert report.ok
    details = {check.name: check.detail for check in report.checks}
    assert "does not exist" in details["summary.json"]
    assert "when the run's session ends" in details["labels.parquet"]
    assert report.counts["pending"] == 10


def test_a_run_with_rows_archived_waits_for_its_next_session(run: Path) -> None:
    async def retry() -> None:
        async with await Ledger.open(run / "ledger.db") as ledger:
            await ledger.archive(Selection(statuses=frozenset({Status.FAILED})), "retry")
        RunDir(run).clear_summary()

    asyncio.run(retry())
    report = looked_at(run, [[f"r{number}" for number in range(40)]])
    assert report.ok
    assert report.counts["pending"] == 8
    assert any("next session" in line for line in report.lines())


def test_rows_in_the_inputs_order_are_proved_up_to_the_end_of_the_last_session(tmp_path: Path) -> None:
    async def main(numbers: Sequence[int], *, ends: bool) -> None:
        run_dir = RunDir(tmp_path)
        run_dir.write_manifest({})
        async with await Ledger.open(run_dir.ledger) as ledger:
            sinks = await Sinks.start(run_dir, ledger, replace(LAYOUT, order="input"))
            batch = [outcome(number) for number in numbers]
            await sinks.write(batch, await ledger.commit(batch, sinks.checkpoints()))
            await (sinks.finish() if ends else sinks.close())

    def told() -> str:
        report = looked_at(tmp_path)
        assert report.ok
        return {check.name: check.detail for check in report.checks}["labels.csv"]

    asyncio.run(main((3, 1), ends=False))
    assert told() == "is to be built again, when the session ends."
    asyncio.run(main((0, 4), ends=True))
    assert told() == "3 rows, identical to the ledger."
    asyncio.run(main((2,), ends=False))
    assert told() == "3 rows, identical to the ledger, and the rest is still to come."


def test_without_a_ledger_there_is_nothing_to_prove(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no ledger here"):
        looked_at(tmp_path)
