"""The same folder with an input that was changed by hand: each record keeps its label, and only what is new is paid."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from labelpipe import RunOptions, RunSummary, Settings, run, verify
from pipeline.errors import ChangedError
from pipeline.records import Answer, Request, Response, ToolCall, Usage

sys.path.insert(0, str(Path(__file__).parents[1] / "readers"))
from reader_servers import serving

Rows = Sequence[Mapping[str, Any]]


class Job:
    """A folder, and a model of one's own that gives each text the label `<text>` and counts what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.at_call: Any = None

    def give(self, rows: Rows, name: str = "in.csv", *, columns: Sequence[str] | None = None) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith("csv"):
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns or rows[0])
                writer.writerows(row.values() for row in rows)
        else:
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    async def answer(self, request: Request) -> Response:
        text = str(request.messages[-1]["content"])
        self.asked[text] += 1
        if self.at_call is not None:
            self.at_call()
        return Response(Answer((ToolCall("c", "set_label", json.dumps({"label": text})),)), Usage(1, 1), "m")

    def run(self, *, choice: str = "", records: Any = None, prompt: str = "{{ text }}", **reading: Any) -> RunSummary:
        source = {} if records is not None else {"path": "in.csv"}
        settings = Settings(
            input=source | reading,
            task={"prompt": prompt, "function": FUNCTION},
            model={"name": "m", "base_url": "http://127.0.0.1:9/v1"},
            output={"dir": "run", "order": "input"},
        )
        options = RunOptions(quiet=True, provider=self.answer, **({choice: True} if choice else {}))
        return run(settings, options, records=records)

    def labels(self) -> list[tuple[str, str]]:
        with (self.folder / "run" / "labels.csv").open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]

    def expect(self, texts: Iterable[str], *, calls: int, summary: RunSummary) -> None:
        """These texts are labelled, in this order and each with its own label, and all agree about it."""
        texts = list(texts)
        assert self.labels() == [(text, text) for text in texts]
        assert self.asked.total() == calls
        assert (summary.labelled, summary.exit_code) == (len(texts), 0)
        report = verify(self.folder / "run")
        assert report.ok, report.lines()
        counted = {"rows_in": len(texts), "pending": 0, "orphans": 0}
        assert {name: report.counts.get(name, number) for name, number in counted.items()} == counted


FUNCTION = {
    "name": "set_label",
    "parameters": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]},
}
THREE = [{"id": "1", "text": "good"}, {"id": "2", "text": "bad"}, {"id": "3", "text": "so so"}]
NEW = {"id": "9", "text": "new"}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    made = Job(tmp_path)
    made.give(THREE)
    made.expect(["good", "bad", "so so"], calls=3, summary=made.run())
    return made


@pytest.mark.parametrize("choice", ["", "keep"])
def test_rows_that_are_put_in_moved_taken_out_and_put_back(job: Job, choice: str) -> None:
    for rows, calls in (
        ([NEW, *THREE], 4),
        ([*THREE[1:], NEW], 4),
        ([*reversed(THREE), NEW], 4),
        ([NEW, THREE[0], NEW, *THREE], 4 + 2 * 0),
    ):
        job.give(rows)
        texts = [row["text"] for row in rows]
        summary = job.run(choice=choice)
        # A text that is there twice is answered by the first.
        job.expect(texts, calls=calls, summary=summary)


def test_the_name_of_the_file_its_format_and_the_key_are_no_change_of_a_record(job: Job) -> None:
    texts = [row["text"] for row in THREE]
    job.expect(texts, calls=3, summary=job.run(key="id"))
    job.expect(texts, calls=3, summary=job.run(key="text"))
    (job.folder / "in.csv").rename(job.folder / "moved.csv")
    job.expect(texts, calls=3, summary=job.run(path="moved.csv"))
    job.give([{"text": row["text"], "id": row["id"]} for row in THREE], "in.jsonl")
    job.expect(texts, calls=3, summary=job.run(path="in.jsonl", format="jsonl"))
    job.give(THREE[:1], "parts/1.csv")
    job.give(THREE[1:], "parts/2.csv")
    job.expect(texts, calls=3, summary=job.run(path="parts/*.csv", key="id"))
    job.expect([*texts[1:], texts[0]], calls=3, summary=job.run(path=["parts/2.csv", "parts/1.csv"]))
    job.expect(texts, calls=3, summary=job.run(records=THREE))


def test_what_no_prompt_shows_is_refreshed_without_a_call(job: Job) -> None:
    job.give([row | {"shop": f"in {row['id']}"} for row in THREE])
    job.expect(["good", "bad", "so so"], calls=3, summary=job.run())
    with (job.folder / "run" / "labels.csv").open(encoding="utf-8") as file:
        assert [row["shop"] for row in csv.DictReader(file)] == ["in 1", "in 2", "in 3"]
    # A row is put in at the same time, and the ids are floats now.
    job.give([NEW, *({"id": float(row["id"]), "text": row["text"]} for row in THREE)])
    job.expect(["new", "good", "bad", "so so"], calls=4, summary=job.run(key="id"))


@pytest.mark.parametrize("key", [None, "id"])
def test_what_reads_otherwise_is_asked_about(job: Job, key: str | None) -> None:
    job.run(key=key)
    edited = [THREE[0], THREE[1] | {"text": "better"}, THREE[2]]
    job.give(edited)
    with pytest.raises(ChangedError, match=r"1 record with an outcome and changed content: (2|in\.csv:3)\n") as told:
        job.run(key=key)
    assert "affects 1 of 3 records" in str(told.value)
    assert job.labels()[1] == ("bad", "bad")
    assert job.run(key=key, choice="keep").labelled == 3
    assert job.labels()[1] == ("bad", "bad"), "the row shows what was labelled"
    assert verify(job.folder / "run").ok
    assert job.run(key=key).exit_code == 0, "nobody is asked about it again"
    edited[2] = THREE[2] | {"text": "worse"}
    job.give(edited)
    summary = job.run(key=key, choice="relabel")
    assert (summary.labelled, job.asked.total()) == (3, 4)
    assert job.labels() == [("good", "good"), ("bad", "bad"), ("worse", "worse")]


def test_a_column_that_has_another_name_is_another_record(job: Job) -> None:
    job.give([{"text": row["id"], "id": row["text"]} for row in THREE])
    with pytest.raises(ChangedError, match="3 records with an outcome and changed"):
        job.run()
    job.give(THREE)
    job.expect(["good", "bad", "so so"], calls=3, summary=job.run())


def test_another_file_in_the_same_place_is_asked_about_and_takes_no_label(job: Job) -> None:
    for key in (None, "id"):
        job.give(THREE)
        job.run(key=key)
        job.give([{"id": f"x{number}", "text": f"other {number}"} for number in range(9)])
        with pytest.raises(ChangedError, match=r"(changed content|cannot be found in it)"):
            job.run(key=key)
    assert job.asked.total() == 3


def test_another_way_of_reading_is_told_where_it_loses_a_record(job: Job) -> None:
    (job.folder / "in.txt").write_text("text\ngood\nbad\n", encoding="utf-8")
    job.run(path="in.txt", choice="keep")
    with pytest.raises(ChangedError) as told:
        job.run(path="in.txt", format="csv")
    assert 'input.format: "auto" -> "csv"' in str(told.value)
    assert "1 record with a label cannot be found in it: in.txt:1" in str(told.value)
    job.expect(["good", "bad"], calls=4, summary=job.run(path="in.txt", format="csv", choice="keep"))


def test_another_quote_is_told_and_none_given_by_python_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(tmp_path)
    (job.folder / "in.csv").write_text('id,text\n1,"a"\n2,b\n', encoding="utf-8")
    job.run(key="id")
    assert job.run(key="id", quote=None).calls == 0
    with pytest.raises(ChangedError) as told:
        job.run(key="id", quote="none")
    assert 'input.quote: (not set) -> "none"' in str(told.value)
    assert "1 record with an outcome and changed content: 1" in str(told.value)
    assert job.run(key="id", quote="none", choice="relabel").calls == 1
    assert [text for text, _label in job.labels()] == ['"a"', "b"]


def test_a_prompt_that_prints_the_record_says_that_all_its_fields_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(tmp_path)
    job.give([{"id": "1", "text": "a"}])
    job.run(key="id", prompt="{{ record }}")
    job.give([{"text": "a", "id": "1"}])
    summary = job.run(key="id", prompt="{{ record }}")
    assert summary.calls == 0
    assert "changed in nothing but the order of the fields and kept the label, at no cost" in summary.notes[0]
    job.give([{"text": "a", "id": "1", "more": "x"}])
    with pytest.raises(ChangedError, match=r"The prompt prints the whole record \(\{\{ record \}\}\)"):
        job.run(key="id", prompt="{{ record }}")


def test_mended_rows_are_labelled_and_counted_no_more(job: Job) -> None:
    path = job.folder / "in.csv"
    path.write_text("id,text\n1,good\n2,bad,more\n1,fine\n,none\n(in.csv:3),named\n", encoding="utf-8")
    summary = job.run(key="id", choice="keep")
    assert summary.problems == {"duplicate_key": 1, "no_key": 1, "unreadable": 1}
    job.give(
        [{"id": str(number), "text": text} for number, text in enumerate(["good", "bad", "fine", "none", "named"])]
    )
    job.expect(["good", "bad", "fine", "none", "named"], calls=6, summary=job.run(key="id"))


def test_a_run_of_the_version_before_goes_on(job: Job) -> None:
    """Its digests were others, its made-up names stood among the given ones, and its manifest says less."""
    (job.folder / "in.csv").write_text("id,text\n1,good\n2,bad,more\n3,so so\n", encoding="utf-8")
    assert job.run(key="id", choice="keep").rejected == 1
    with closing(sqlite3.connect(job.folder / "run" / "ledger.db")) as connection:
        connection.execute("UPDATE outcomes SET digest = digest + 1")
        connection.execute("UPDATE outcomes SET key = 'in.csv:3' WHERE key = '(in.csv:3)'")
        connection.execute("UPDATE sinks SET digest = NULL")
        connection.commit()
    manifest = json.loads((job.folder / "run" / "manifest.json").read_text(encoding="utf-8"))
    del manifest["names"]
    manifest["fingerprint"]["input"] = {"path": "in.csv", "key": "id", "encoding": "utf-8"}
    manifest["reading"] = {name: manifest["reading"].get(name) for name in ("paths", "base", "format", "key", "limit")}
    (job.folder / "run" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    summary = job.run(key="id")
    assert (summary.labelled, summary.rejected, job.asked.total()) == (2, 1, 3)
    assert verify(job.folder / "run").ok
    job.give(THREE)
    job.expect(["good", "bad", "so so"], calls=3, summary=job.run(key="id"))


def test_a_stream_is_compared_as_it_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(tmp_path)
    assert job.run(records=iter(THREE[:2])).labelled == 2
    assert job.run(records=iter(THREE)).labelled == 3, "it has grown"
    other = job.run(records=iter([NEW, *THREE]))
    assert (other.exit_code, other.labelled, job.asked.total()) == (2, 3, 3)
    assert "is not the input that this run has labelled" in other.reason
    assert job.run(records=iter([NEW, *THREE]), choice="keep").exit_code == 2, "no name tells which is which"
    assert job.run(records=iter([NEW, *THREE]), choice="relabel").labelled == 4
    with pytest.raises(ChangedError, match="--keep cannot find out which record is which"):
        job.run(records=iter(THREE), key="id", choice="keep")


def test_a_stream_with_names_asks_only_about_what_the_prompt_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(tmp_path)
    job.run(records=iter([*THREE, {"text": "no name"}]), key="id")
    summary = job.run(records=iter([{**row, "id": float(row["id"]), "shop": "x"} for row in THREE]), key="id")
    assert (summary.labelled, job.asked.total()) == (3, 3)
    assert (summary.rejected, summary.exit_code) == (0, 0), "the one without a name is not in it any more"
    edited = [{**row, "text": f"new {row['text']}"} for row in THREE]
    assert job.run(records=iter(edited), key="id").exit_code == 2
    assert job.run(records=iter(edited), key="id", choice="keep").labelled == 3
    assert job.labels()[0] == ("good", "good")
    job.run(records=iter(edited), key="id", choice="relabel")
    assert job.labels()[0] == ("new good", "new good")


def test_an_input_that_changes_while_it_is_read_is_told_at_the_end(job: Job) -> None:
    more = [{"id": str(number), "text": f"text {number}"} for number in range(20)]
    job.give([*THREE, *more])
    job.at_call = lambda: job.give([NEW, *THREE, *more])
    summary = job.run()
    job.at_call = None
    assert (summary.ended, summary.exit_code) == ("complete", 1)
    assert any("The input has changed while it was read: in.csv" in note for note in summary.notes)
    assert summary.next_step.startswith("labelpipe run")
    assert json.loads((job.folder / "run" / "summary.json").read_text(encoding="utf-8"))["notes"] == list(summary.notes)
    texts = [row["text"] for row in [NEW, *THREE, *more]]
    job.expect(texts, calls=len(texts), summary=job.run())


@pytest.mark.parametrize("at_the_end", ["changed", "gone", "as it was"])
def test_a_file_on_a_server_that_changes_while_it_is_read_is_told_at_the_end(job: Job, at_the_end: str) -> None:
    with serving(in__jsonl=b"".join(json.dumps(row).encode() + b"\n" for row in [*THREE, NEW])) as site:

        def change() -> None:
            site.etag, site.status = ('"2"', 0) if at_the_end == "changed" else ('"1"', 503 * (at_the_end == "gone"))

        job.at_call = change
        summary = job.run(path=f"{site.address}/in.jsonl")
    assert (summary.ended, summary.labelled) == ("complete", 4)
    assert summary.exit_code == (at_the_end == "changed")
    assert any("has changed while it was read" in note for note in summary.notes) == (at_the_end == "changed")


def test_a_corrected_file_is_kept_and_told(job: Job) -> None:
    labels = job.folder / "run" / "labels.csv"
    corrected = labels.read_bytes().replace(b"bad,bad", b"bad,corrected by hand")
    labels.write_bytes(corrected)
    assert "1 row has other values (in.csv:3)" in "\n".join(verify(job.folder / "run").lines())
    job.give([*THREE, NEW])
    summary = job.run()
    (aside,) = (job.folder / "run").glob("labels.changed-*.csv")
    assert aside.read_bytes() == corrected
    assert [note for note in summary.notes if str(aside.name) in note and "untouched" in note]
    job.expect(["good", "bad", "so so", "new"], calls=4, summary=summary)


def test_nothing_of_it_blocks_a_program_with_a_loop_of_its_own(job: Job) -> None:
    async def main() -> int:
        job.give([NEW, *THREE])
        return await asyncio.to_thread(lambda: job.run().labelled)

    assert asyncio.run(main()) == 4
