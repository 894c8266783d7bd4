"""Which records a run takes: `input.where`, a sample, a file of keys; counted, told, resumable, and proved."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline import Settings, check, plan, preview, run, verify
from pipeline.cli import app
from pipeline.errors import ChangedError, InputError, SetupError
from pipeline.stats import RunSummary

Row = dict[str, Any]
WHERE = "len(text) > 0 and lang == 'en'"


def rows(count: int = 40) -> list[Row]:
    """Every second one is English, every fifth one is empty."""
    return [{"id": f"r{at}", "text": f"text {at}" * (at % 5 > 0), "lang": ["en", "de"][at % 2]} for at in range(count)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(rows())
    return tmp_path


def write(found: list[Row], name: str = "in.jsonl") -> None:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in found))


def settings(**chosen: Any) -> Settings:
    return Settings(
        input={"path": "in.jsonl", "key": "id", **chosen},
        task={"prompt": "{{ id }} {{ text }}", "labels": {"label": ["good", "bad"]}},
        model={"name": "m", "base_url": "rehearsal"},
        output={"dir": "run"},
        rehearsal={"latency_ms": 0},
    )


def labelled(**chosen: Any) -> RunSummary:
    return run(settings(**chosen))


def keys() -> set[str]:
    with Path("run/labels.csv").open(newline="") as file:
        return {row["id"] for row in csv.DictReader(file)}


def counted() -> dict[str, int]:
    report = verify("run")
    assert report.ok, report
    return {name: count for name, count in report.counts.items() if count}


# an expression


def test_records_of_which_it_is_not_true_are_left_out_counted_and_told() -> None:
    summary = labelled(where=WHERE)
    assert (summary.labelled, summary.left_out, summary.left_out_by) == (16, 24, {"where": 24})
    assert "left out: 24 by input.where" in repr(summary)
    assert keys() == {row["id"] for row in rows() if row["text"] and row["lang"] == "en"}
    assert json.loads(Path("run/summary.json").read_text())["left_out"] == 24
    assert counted() == {"rows_in": 40, "labelled": 16, "left_out": 24}
    assert "40 = 16 labelled + 0 rejected + 0 failed + 0 pending + 24 left out." in repr(verify("run"))


def test_a_missing_or_empty_field_is_not_true_and_a_bad_line_is_not_left_out() -> None:
    found = [{"id": "a", "text": None, "lang": "en"}, {"id": "b", "lang": "en"}, {"id": "c", "text": "x", "lang": "en"}]
    write(found)
    with Path("in.jsonl").open("a") as file:
        file.write("{broken\n")
    summary = labelled(where=WHERE)
    assert (summary.labelled, summary.rejected, summary.left_out) == (1, 1, 2)
    assert (
        "2 by input.where (2 of them because a field of the expression is missing, null, or of another type)"
        in repr(summary)
    )
    assert counted() == {"rows_in": 4, "labelled": 1, "rejected": 1, "left_out": 2}


def test_that_all_records_are_left_out_is_told() -> None:
    Path("keys.txt").write_text("nobody\n")
    told = "all 40 records of in.jsonl are left out: 24 by input.where, 16 by input.keys"
    chosen = settings(where=WHERE, keys="keys.txt")
    for attempt in (preview, plan):
        with pytest.raises(SetupError) as caught:
            attempt(chosen)
        assert told in str(caught.value)
    assert told in repr(check(chosen, online=False))
    assert told in (run(chosen).reason or "")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("lang = 'en'", "column 6 ('='; write == to compare)"),
        ("len(text) >", "column 12 (the end)"),
        ("lang == 'en", "column 9: unexpected char"),
        ("text is None", "column 9: there is no test 'None'; write none"),
        ("text.__class__", "uses '__class__'"),
        (
            "text > 3",
            "cannot be evaluated for any record examined: '>' not supported between",
        ),
        ("langg == 'en'", "names 'langg', which none of the records examined has; the fields are id, text, lang (did"),
    ],
)
def test_a_mistake_in_it_is_found_before_anything_is_done(where: str, words: str) -> None:
    for attempt in (
        lambda: labelled(where=where),
        lambda: preview(settings(where=where)),
        lambda: plan(settings(where=where)),
    ):
        with pytest.raises(SetupError) as caught:
            attempt()
        assert words in str(caught.value)
    assert not Path("run/labels.csv").exists()
    assert words in repr(check(settings(where=where), online=False))


def test_another_expression_keeps_what_stays_and_asks_about_the_rest() -> None:
    assert labelled(where="lang == 'en'").labelled == 20
    wider = labelled(where="lang in ['en', 'de']")
    assert (wider.labelled, wider.session_records) == (40, 20)
    with pytest.raises(ChangedError, match=r"where[\s\S]*20 records with a label cannot be found in it"):
        labelled(where="lang == 'de'")
    Path("job.toml").write_text(
        '[input]\npath = "in.jsonl"\nkey = "id"\nwhere = "lang == \'de\'"\n[task]\nprompt = "{{ id }} {{ text }}"\n'
        '[task.labels]\nlabel = ["good", "bad"]\n[model]\nname = "m"\nbase_url = "rehearsal"\n[output]\ndir = "run"\n'
    )
    narrow = command("run", "job.toml", "--keep", "--json")
    assert narrow.exit_code == 0, narrow.output
    assert keys() == {row["id"] for row in rows() if row["lang"] == "de"}
    assert counted() == {"rows_in": 40, "labelled": 20, "left_out": 20}
    again = labelled(where="lang in ['en', 'de']")
    assert (again.labelled, again.session_records) == (40, 0), "they come back with the label they had"


# a sample


def test_a_sample_is_always_the_same_and_a_larger_one_holds_it() -> None:
    summary = labelled(sample=10)
    assert (summary.labelled, summary.left_out_by) == (10, {"sample": 30})
    first = keys()
    assert counted() == {"rows_in": 40, "labelled": 10, "left_out": 30}
    assert labelled(sample=10).session_records == 0
    assert labelled(sample=15).session_records == 5
    assert first < keys()
    rest = labelled()
    assert (rest.labelled, rest.session_records, rest.left_out) == (40, 25, 0)
    assert counted() == {"rows_in": 40, "labelled": 40}
    assert labelled(sample=10).session_records == 0
    assert counted() == {"rows_in": 40, "labelled": 40}, "what has an outcome is not left out"


def test_it_is_drawn_from_all_records_and_another_seed_draws_another() -> None:
    def drawn(**chosen: Any) -> set[str]:
        seen = preview(settings(**chosen), 40, prompt=True)
        return {one.record.key for one in seen.requests or ()}

    write([{**row, "text": "some"} for row in rows(400)])
    one, other = drawn(sample=30), drawn(sample=30, seed=1)
    assert len(one) == len(other) == 30
    assert one != other
    assert any(int(key[1:]) > 300 for key in one), "not the first ones"
    write([{**row, "text": "some"} for row in rows(420)])
    assert len(one & drawn(sample=30)) > 24, "20 more records take few places"
    of_the_first = drawn(sample=10, limit=50)
    assert len(of_the_first) == 10
    assert all(int(key[1:]) < 50 for key in of_the_first)


def test_preview_and_run_draw_the_same_records() -> None:
    seen = preview(settings(where="len(text) > 0"), 0, sample=5, prompt=True)
    labelled(sample=5, where="len(text) > 0")
    assert {one.record.key for one in seen.requests or ()} == keys()


def test_the_pilot_of_a_plan_is_a_sample_whose_answers_the_run_keeps() -> None:
    planned = plan(settings(where="lang == 'en'"), 4, quiet=True)
    assert (planned.done, planned.left) == (4, 16)
    pilot = keys()
    assert pilot != {"r0", "r2", "r4", "r6"}, "not the first ones"
    summary = labelled(where="lang == 'en'")
    assert (summary.labelled, summary.session_records) == (20, 16)
    assert pilot < keys()


def test_what_can_be_read_once_cannot_be_sampled() -> None:
    with pytest.raises(InputError, match="a sample reads the input twice"):
        run(settings(sample=3), records=iter(rows()))


def test_an_expression_fits_a_stream_too() -> None:
    summary = run(settings(where="lang == 'en'"), records=iter(rows()))
    assert (summary.labelled, summary.left_out) == (20, 20)


# keys


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keys.txt", "r1\n\nr30 \r\nr39\nr99\n"),
        ("keys.csv", "id;note\nr1;x\nr30;\nr39;\nr99;\n"),
        ("keys.jsonl", '{"id": "r1"}\n{"id": "r30"}\n{"id": "r39"}\n{"id": "r99"}\n'),
    ],
)
def test_a_file_of_keys(name: str, text: str) -> None:
    Path(name).write_text(text, newline="")
    summary = labelled(keys=Path(name))
    assert keys() == {"r1", "r30", "r39"}
    assert summary.left_out_by == {"keys": 37}
    assert counted() == {"rows_in": 40, "labelled": 3, "left_out": 37}
    assert labelled().session_records == 37


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "keys.csv is not there"), ("id\n", "holds no keys"), ("key\nr1\n", "the key field 'id' is missing")],
)
def test_a_file_of_keys_that_cannot_be_used(text: str | None, words: str) -> None:
    if text is not None:
        Path("keys.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        labelled(keys="keys.csv")


# the command line


def command(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_the_options_of_the_commands() -> None:
    Path("job.toml").write_text(
        '[input]\npath = "in.jsonl"\nkey = "id"\n[task]\nprompt = "{{ id }} {{ text }}"\n[task.labels]\n'
        'label = ["good", "bad"]\n[model]\nname = "m"\nbase_url = "rehearsal"\n[output]\ndir = "run"\n'
    )
    Path("keys.txt").write_text("r7\nr8\nr9\nr77\n")
    seen = command("preview", "job.toml", "--keys", "keys.txt", "--json")
    assert [one["key"] for one in json.loads(seen.stdout)["records"]] == ["r7", "r8", "r9"]
    done = command("run", "job.toml", "--keys", "keys.txt", "--sample", "2")
    assert done.exit_code == 0, done.output
    assert "sample    2 records, drawn with seed 0" in done.output
    assert "keys      those in keys.txt" in done.output
    assert "left out: 37 by input.keys, 1 by input.sample" in done.output
    assert "1 key is in no record: r77" in done.output
    planned = command("plan", "job.toml", "--sample", "9", "--pilot", "3", "--json")
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["records"] == 9
    found = check("job.toml", online=False)
    assert found.ok
    wrong = command("run", "job.toml", "--set", "input.where=lang = 'en'")
    assert (wrong.exit_code, "column 6" in wrong.output) == (2, True)
