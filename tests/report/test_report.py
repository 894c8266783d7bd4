"""The page about a run: whole, escaped, without a secret; and the run never depends on it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.report_runs import HOSTILE, model, run_of, settings_of

from pipeline import ReportFile, RunOptions, replay, run, status, write_report
from pipeline.errors import SetupError
from pipeline.report import load_report_data, render
from pipeline.report.charts import _length, _time_ticks
from pipeline.report.timeline import read_timeline
from pipeline.report.view import SEVERAL, distributions, sample
from pipeline.show import closing_lines
from pipeline.store import LabelDigest, read_column, write_certificate


class Page(HTMLParser):
    """What a browser would make of it: elements, what they refer to, and texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_ends_with_a_page_that_shows_hostile_records_as_text(tmp_path: Path) -> None:
    summary = run_of(tmp_path, [*HOSTILE, "refuse this"])
    path = tmp_path / "run" / "report.html"
    assert summary.files["report"] == str(path)
    assert f"  report    {path}" in closing_lines(summary)
    assert json.loads((tmp_path / "run" / "summary.json").read_bytes())["files"]["report"] == str(path)
    assert path.stat().st_size < 100_000, "texts of 200 kB are shortened"
    page = Page(path)
    assert not page.tags & {"script", "img", "iframe", "link", "b", "object", "form"}
    assert [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href", "style"}] == []
    for text in ("<script>document.title = 'owned'", "=cmd|' /C calc'!A0", "{{ 7 * 7 }}", "I <b>cannot</b> do that",
                 r"\u202ereversed", r"\x1b[31m", "more characters"):  # fmt: skip
        assert text in page.text, text
    assert not any(ord(char) < 32 and char not in "\n\t" for char in page.text)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in (value or ""))
    assert (policy or "").startswith("default-src 'none'; style-src 'sha256-")


def test_it_says_what_was_done_and_no_secret(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day", "refuse this", "refuse that"])
    text = Page(tmp_path / "run" / "report.html").text
    for told in (
        "Mood? {{ text }}",
        "good",
        "refused",
        "2 records",
        "33.3%",
        "0.25 s",
        "50.0% of the prompt",
        "[task]",
    ):
        assert told in text, told
    everything = b"".join(file.read_bytes() for file in (tmp_path / "run").iterdir())
    assert b"verysecret" not in everything


def test_what_was_measured_stands_on_the_page_the_screen_and_in_status(tmp_path: Path) -> None:
    """The files of `evaluate` and `certify`: what they lack is left out."""
    folder = tmp_path / "run"
    folder.mkdir()
    column = {
        "n": 200, "accuracy": 0.925, "accuracy_low": 0.88, "accuracy_high": 0.954, "kappa": 0.81,
        "classes": {"good": {"precision": 0.9, "recall": 0.8, "f1": 0.847, "support": 120}},
        "confusion": {"good": {"good": 110, "<b>bad</b>": 10}, "<b>bad</b>": {"<b>bad</b>": 80}},
        "calibration": {"bins": [{"confidence": 0.9, "accuracy": 0.85, "n": 200}], "expected_error": 0.05},
    }  # fmt: skip
    told = {
        "at": "2026-11-30T12:00:00+00:00",
        "gold": {"file": "gold.csv", "compared": 200},
        "columns": {"mood": column},
    }
    settings = settings_of(tmp_path, ["a fine day"])
    run(settings, RunOptions(quiet=True, provider=model))
    (folder / "evaluations.jsonl").write_text(f"{json.dumps(told)}\n{{half a li", encoding="utf-8")
    seen = LabelDigest()
    list(read_column(folder / "ledger.db", "mood", digest=seen))
    certificate = {
        "column": "mood", "certified": True, "error": 0.05, "confidence": 0.95, "void": "", "labels": seen.digest,
        "last_seq": seen.last_seq, "scores": ["agreement", "confidence"],
        "text": "With 95.0% confidence, at most 5.00% are <i>wrong</i>.",
    }  # fmt: skip
    write_certificate(folder, certificate)
    summary = run(settings, RunOptions(quiet=True, provider=model))
    line = "  accuracy  mood 92.5% (88.0% to 95.4%, 200 gold records)"
    assert line in closing_lines(summary)
    assert line in repr(status(folder)).splitlines()
    assert "  mood      good  1  100%  ████████████████████" in repr(status(folder)).splitlines()
    text = Page(folder / "report.html").text
    for word in ("92.5%", "88.0% to 95.4%", "84.7%", "110", "Confusion matrix", "Calibration", "against gold.csv",
                 "Certified error", "Certificate of mood", "at most 5.00% are <i>wrong</i>."):  # fmt: skip
        assert word in text, word
    write_certificate(folder, {**certificate, "labels": "another digest"})
    (folder / "evaluations.jsonl").write_text('{"columns": [1], "gold": 3}\n[]\n')
    write_report(folder)
    text = Page(folder / "report.html").text
    assert "have not been compared with gold" in text
    assert "Void certificate of mood" in text
    assert "Certified error" not in text
    (folder / "certificate.json").write_text("[")
    write_report(folder)
    assert "ertificate of" not in Page(folder / "report.html").text


def test_a_page_that_cannot_be_written_changes_nothing_but_a_note(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day"], output={"report": False})
    (tmp_path / "run" / "report.html").mkdir()
    summary = run_of(tmp_path, ["a fine day"])
    assert (summary.ended, summary.exit_code, summary.labelled) == ("complete", 0, 1)
    assert "report" not in summary.files
    assert [note for note in summary.notes if note.startswith("there is no report: ")]
    assert "labelpipe report" in "\n".join(closing_lines(summary))


def test_a_broken_report_is_told_in_one_line(tmp_path: Path) -> None:
    async def breaks(_summary: object) -> tuple[str, str]:
        raise ZeroDivisionError("of\nmine")

    summary = run(settings_of(tmp_path, ["fine"]), RunOptions(quiet=True, provider=model, after=breaks))
    assert (summary.ended, summary.exit_code) == ("complete", 0)
    assert "ZeroDivisionError" in summary.notes[-1]
    assert "\n" not in summary.notes[-1]


def test_it_is_left_out_on_request_and_written_on_demand(tmp_path: Path) -> None:
    summary = run_of(tmp_path, ["a fine day"], output={"report": False})
    assert "report" not in summary.files
    assert not (tmp_path / "run" / "report.html").exists()
    written = write_report(tmp_path / "run", tmp_path / "page.html")
    assert isinstance(written, ReportFile)
    assert written.size_bytes == (tmp_path / "page.html").stat().st_size
    assert repr(written).startswith(f"Wrote {tmp_path / 'page.html'} (")
    with pytest.raises(SetupError, match="the report cannot be written"):
        write_report(tmp_path / "run", tmp_path / "nowhere" / "page.html")
    with pytest.raises(SetupError, match="there is no run here"):
        write_report(tmp_path)


def test_a_notebook_gets_a_link_and_a_replay_a_new_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(tmp_path, ["fine"], output={"dir": "my run"})
    summary = run(settings, RunOptions(quiet=True, provider=model))
    assert '<a href="my%20run/report.html" target="_blank">my run/report.html</a>' in summary._repr_html_()
    (tmp_path / "my run" / "report.html").unlink()
    assert replay(settings).files["report"] == "my run/report.html"
    assert (tmp_path / "my run" / "report.html").exists()


def test_the_sample_is_the_same_each_time_and_a_run_without_notes_has_a_chart(tmp_path: Path) -> None:
    """As the run of an older labelpipe: it has noted neither its pace nor its config."""
    run_of(tmp_path, [f"day {number}" for number in range(700)])
    folder = tmp_path / "run"
    (folder / "throughput.jsonl").unlink()
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        ledger.execute("UPDATE outcomes SET finished_at = finished_at + seq")
        ledger.commit()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["config"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    first, second = (asyncio.run(load_report_data(folder)).overview.sample for _ in range(2))
    assert len({one.record.key for one in first}) == 12
    assert first == second
    assert "has noted no calls" in render(asyncio.run(load_report_data(folder)))


def test_a_session_after_a_kill_notes_its_pace_on_lines_of_its_own(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day"])
    path = tmp_path / "run" / "throughput.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    run_of(tmp_path, ["a fine day", "another day"])
    found = read_timeline(path)
    assert found is not None
    assert (found.sessions, found.totals["answers"]) == (1, 1), "that of the second"
    path.write_bytes(whole + path.read_bytes().splitlines(keepends=True)[-1])
    found = read_timeline(path)
    assert found is not None
    assert (found.sessions, found.totals["answers"]) == (2, 2)


def test_votes_are_told(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day", "another day"], quality={"votes": 2})
    assert "Votes on labels: 2.00 a record" in Page(tmp_path / "run" / "report.html").text


def test_gold_in_the_run_is_an_accuracy_too(tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("id,text,mood\ng1,a fine day,good\ng2,a poor day,<b>bad</b>\n")
    texts = [f"day {number}" for number in range(6)]
    quality = {"gold": str(tmp_path / "gold.csv"), "gold_column": "mood", "every": 2}
    assert run_of(tmp_path, texts, quality=quality).gold is not None
    text = Page(tmp_path / "run" / "report.html").text
    for word in ("Accuracy of mood, by gold in the run", "50.0%", "<b>bad</b> as good 1"):
        assert word in text, word


def test_labels_stand_as_what_they_are(tmp_path: Path) -> None:
    """Numbers in their order, many of them in spans; several labels of a record as shares of the records."""
    run_of(tmp_path, ["a fine day"])
    found = asyncio.run(load_report_data(tmp_path / "run"))
    labels = {
        "stars": {"5": 7, "10": 2, "1": 1},
        "score": {str(number): 1 for number in (*range(3, 28), 100)},
        "tags": {"x": 8, "[]": 2, "y": 6},
    }
    given = {
        one["column"]: one
        for one in distributions(replace(found, state={**found.state, "labelled": 10, "labels": labels}))
    }
    assert [value for value, *_ in given["stars"]["values"]] == ["1", "5", "10"]
    assert given["score"]["values"][0][:2] == ("0 to 4", 2)
    assert given["score"]["values"][-1][:2] == ("100", 1)
    assert sum(count for _, count, *_ in given["score"]["values"]) == 26
    assert [share for _, _, share, _ in given["tags"]["values"]] == [0.8, 0.2, 0.6]
    assert (given["tags"]["note"], given["stars"]["note"]) == (SEVERAL, "")


def test_a_record_is_shown_by_what_the_prompt_shows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text,url\n1,short,https://198.51.100.7/a/long/address\n")
    run_of(tmp_path, [], input={"path": str(tmp_path / "in.csv"), "key": "id"})
    assert [row[1] for row in sample(asyncio.run(load_report_data(tmp_path / "run")))[1]] == ["short"]


def test_a_matrix_of_many_classes_fits_and_names_the_confusions(tmp_path: Path) -> None:
    run_of(tmp_path, ["a fine day"])
    names = [f"<c{number:02d}>" for number in range(40)]
    confusion = {name: {name: 10 + at, names[at - 1]: 1} for at, name in enumerate(names)}
    confusion["<c05>"] = {"<c06>": 4, "not in gold": 2}
    column = {"n": 1, "accuracy": 0.5, "classes": {name: {"support": 1} for name in names}, "confusion": confusion}
    (tmp_path / "run" / "evaluations.jsonl").write_text(json.dumps({"columns": {"mood": column}}) + "\n")
    write_report(tmp_path / "run")
    text = Page(tmp_path / "run" / "report.html").text
    assert "26 more classes are not shown." in text
    assert "Most often confused: <c05> as <c06> 4, <c05> as not in gold 2, <c00> as <c39> 1" in text


def test_an_axis_of_time_has_no_label_twice() -> None:
    for length_s in (5, 80, 190, 700, 5000, 40_000, 900_000):
        labels = [_length(at) for at in _time_ticks(length_s, 8)]
        assert len(set(labels)) == len(labels), labels
