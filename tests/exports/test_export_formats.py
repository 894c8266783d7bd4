"""The forms of an export's rows: as in labels.*, label and text, chat lines, and a Hugging Face dataset."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_samples import exported, labelled, made, read, texts, where

from pipeline import Settings, export, run
from pipeline.errors import SetupError
from pipeline.parts import task_of
from pipeline.records import Problem, Record, Status
from pipeline.store import CERTAINTY, Answer, LabelDigest, label_digest, open_reviews, read_column, write_certificate

#: What a file must not choke on.
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "x" * 200_000,
    "مرحبا بالعالم، هذا نص من اليمين إلى اليسار",
    "half \ud83d of a pair",
    'quotes " and\r\nlines, <script>alert(1)</script>',
    "nul \x00 and tab \t",
]


def test_hostile_records_come_through_whole(tmp_path: Path) -> None:
    some = [*HOSTILE, *texts(range(14))]
    keys = ["../../etc/passwd", "a/b", "=1+1", *(f"k{at}" for at in range(17))]
    outcomes = [
        labelled(at, {"id": key, "text": text, "split": "mine"}, key=key)
        for at, (key, text) in enumerate(zip(keys, some, strict=True))
    ]
    run_dir = made(tmp_path / "run", outcomes, escape_formulas=True)
    wanted = {key: text.replace("\ud83d", "�") for key, text in zip(keys, some, strict=True)}
    exported(run_dir, tmp_path / "lines", format="jsonl")
    rows = [row for rows in read(tmp_path / "lines", "jsonl").values() for row in rows]
    assert {row["id"]: row["text"] for row in rows} == wanted
    assert {row["split"] for row in rows} == {"mine"}
    exported(run_dir, tmp_path / "cells")
    rows = [row for rows in read(tmp_path / "cells").values() for row in rows]
    assert {row["id"]: row["text"] for row in rows} == {
        ("'" + key if key[0] == "=" else key): ("'" + text if text[0] == "=" else text) for key, text in wanted.items()
    }
    exported(run_dir, tmp_path / "text", text="text")
    rows = [row for rows in read(tmp_path / "text").values() for row in rows]
    assert {tuple(row) for row in rows} == {("label", "text")}
    assert len(rows) == 20
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("run", "lines", "cells", "text")] == []


def test_labels_of_every_kind(tmp_path: Path) -> None:
    """None, lists, numbers and truth values; as classes too."""
    values: list[Any] = [None, True, 3, 2.5, "a", ["x", "y"], {"deep": 1}]
    some = texts(range(70))
    run_dir = made(
        tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}, {"label": values[at % 7]}) for at in range(70)]
    )
    done = exported(run_dir, tmp_path / "lines", format="jsonl", by="label")
    rows = [row for rows in read(tmp_path / "lines", "jsonl").values() for row in rows]
    assert sorted(json.dumps(row["label"]) for row in rows) == sorted(json.dumps(values[at % 7]) for at in range(70))
    assert done.classes.keys() == {"", "true", "3", "2.5", "a", '["x","y"]', '{"deep":1}'}
    assert done.records == {"train": 56, "val": 7, "test": 7}
    plain = exported(run_dir, tmp_path / "text", text="text", by="label", format="jsonl")
    assert plain.left_out == {"no_label": 10}


def test_parquet_has_the_same_types_in_each_split(tmp_path: Path) -> None:
    """Only one record has a fraction, and only one a text for `odd`."""
    parquet = pytest.importorskip("pyarrow.parquet")
    some = texts(range(40))
    outcomes = [
        labelled(at, {"id": at, "text": some[at], "n": 0.5 if at == 7 else at, "odd": "x" if at == 3 else at})
        for at in range(40)
    ]
    exported(made(tmp_path / "run", outcomes), tmp_path / "data", format="parquet")
    tables = [parquet.read_table(path) for path in (tmp_path / "data").glob("*.parquet")]
    assert {str(table.schema.field("n").type) for table in tables} == {"double"}
    assert {str(table.schema.field("odd").type) for table in tables} == {"string"}
    assert sorted(value for table in tables for value in table["id"].to_pylist()) == list(range(40))


def test_several_rows_of_a_record_stay_together(tmp_path: Path) -> None:
    some = texts(range(30))
    outcomes = [
        labelled(at, {"id": at, "text": some[at]}, {}, rows=({"part": "a"}, {"part": "b"}, {"part": "c"}))
        for at in range(30)
    ]
    run_dir = made(tmp_path / "run", outcomes, labels=("part",))
    done = exported(run_dir, tmp_path / "data")
    assert (done.records, done.rows) == ({"train": 24, "val": 3, "test": 3}, {"train": 72, "val": 9, "test": 9})
    split = where(tmp_path / "data")
    assert all(split[row["id"]] == name for name, rows in read(tmp_path / "data").items() for row in rows)
    some_rows = exported(run_dir, tmp_path / "some", where="part != 'b'", by="part")
    assert sum(some_rows.rows.values()) == 60


def test_where_takes_rows(tmp_path: Path) -> None:
    some = texts(range(40))
    labels = [{"label": "a", "agreement": [1.0, 0.5, None, 1][at % 4]} for at in range(40)]
    outcomes = [labelled(at, {"id": at, "text": some[at], "lang": "en"}, labels[at]) for at in range(40)]
    run_dir = made(tmp_path / "run", outcomes, labels=("label", "agreement"))
    done = exported(run_dir, tmp_path / "data", where="agreement == 1 or reviewed")
    assert (sum(done.records.values()), done.left_out) == (20, {"where": 20})
    # A null beside a number fits nothing.
    assert sum(exported(run_dir, tmp_path / "more", where="label.agreement > 0.6").records.values()) == 20
    assert (
        sum(exported(run_dir, tmp_path / "more", where="label == 'a' and record.lang == 'en'").records.values()) == 40
    )
    for text, told in (
        ("agrement == 1", r"--where: no record has 'agrement'; there are .*\(did you mean 'agreement'\?\)"),
        ("agreement ==", "--where: 'agreement ==' is not an expression"),
        ("lang == 'de'", "no labelled record is left to export \\(40 where\\)"),
    ):
        with pytest.raises(SetupError, match=told):
            exported(run_dir, tmp_path / "none", where=text)
    assert not (tmp_path / "none").exists()


def test_empty_texts_are_left_out_and_told(tmp_path: Path) -> None:
    some = ["", "  \n", *texts(range(20))]
    run_dir = made(tmp_path / "run", [labelled(at, {"id": at, "text": text}) for at, text in enumerate(some)])
    assert exported(run_dir, tmp_path / "data").left_out == {"empty_text": 2}


# -- chat --------------------------------------------------------------------------------------------------------------

TASK: dict[str, Any] = {
    "system": "You label tickets.",
    "prompt": "Ticket: {{ text }}",
    "labels": {"topic": ["bill", "login"], "urgent": [True, False]},
    "examples": [{"text": "where is my invoice", "label": {"topic": "bill", "urgent": False}}],
}


def settings(folder: Path, task: dict[str, Any]) -> Settings:
    """A config, as a file, so that the run folder leads to it."""
    lines = ["[input]", 'path = "in.jsonl"', 'key = "id"', "[task]"]
    lines += [f"{name} = {toml(value)}" for name, value in task.items()]
    lines += ["[model]", 'name = "m"', 'base_url = "rehearsal"', "[output]", 'dir = "run"']
    (folder / "a.toml").write_text("\n".join(lines), encoding="utf-8")
    records = [{"id": f"r{at}", "text": text} for at, text in enumerate(texts(range(40)))]
    (folder / "in.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return Settings.load(folder / "a.toml")


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list) else json.dumps(value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_chat_lines_are_what_was_sent_and_the_label(here: Path) -> None:
    config = settings(here, TASK)
    assert run(config).labelled == 40
    labels = {row["id"]: row for row in read(here / "run")["labels"]}
    done = exported(here / "run", here / "data", chat=True)
    assert (done.format, done.former) == ("jsonl", 0)
    assert "SIMULATED: the built-in endpoint made up these labels" in repr(done)
    assert json.loads((here / "data" / "export.json").read_bytes())["simulated"] is True
    task, seen = task_of(config), 0
    records = {row["id"]: row for row in map(json.loads, Path("in.jsonl").read_text(encoding="utf-8").splitlines())}
    by_prompt = {f"Ticket: {row['text']}": key for key, row in records.items()}
    for line in [line for lines in read(here / "data", "jsonl").values() for line in lines]:
        *messages, answer = line.pop("messages")
        key = by_prompt[messages[-1]["content"]]
        request = task.render(Record("", 0, key, records[key], 1, 0))
        assert messages == json.loads(json.dumps(request.messages))
        assert line == {"tools": json.loads(json.dumps(request.tools)), "parallel_tool_calls": False}
        (call,) = answer["tool_calls"]
        assert (answer["role"], call["type"], call["function"]["name"]) == ("assistant", "function", "set_label")
        told = json.loads(call["function"]["arguments"])
        assert list(told) == ["topic", "urgent"]
        assert (told["topic"], json.dumps(told["urgent"])) == (labels[key]["topic"], labels[key]["urgent"])
        seen += 1
    assert seen == 40


def test_chat_lines_hold_a_persons_label(here: Path) -> None:
    """One that the schema does not allow has no line."""
    config = settings(here, TASK)
    run(config)
    labels = {row["id"]: row["topic"] for row in read(here / "run")["labels"]}
    task = task_of(config)
    records = {row["id"]: row for row in map(json.loads, Path("in.jsonl").read_text(encoding="utf-8").splitlines())}
    other = "login" if labels["r0"] == "bill" else "bill"
    with open_reviews(here / "run") as reviews:
        for key, topic in (("r0", other), ("r1", "weather")):
            request = task.render(Record("", 0, key, records[key], 1, 0)).digest
            reviews.add_answers([Answer(key, "ann", "", {}, {"topic": topic}, request=request)])
    done = exported(here / "run", here / "data", chat=True, simulated=True)
    assert (done.left_out, sum(done.records.values())) == ({"invalid_label": 1}, 39)
    calls = {
        line["messages"][-2]["content"]: json.loads(line["messages"][-1]["tool_calls"][0]["function"]["arguments"])
        for lines in read(here / "data", "jsonl").values()
        for line in lines
    }
    assert calls[f"Ticket: {records['r0']['text']}"]["topic"] == other
    assert calls[f"Ticket: {records['r2']['text']}"]["topic"] == labels["r2"]


def test_the_gold_of_the_config_is_not_in_train(here: Path) -> None:
    """Canaries that are in the input too, by their texts: their keys may be others."""
    settings(here, TASK)
    some = texts(range(40))
    gold = [{"id": f"g{at}", "text": some[at], "topic": "bill", "urgent": "true"} for at in range(10)]
    (here / "gold.jsonl").write_text("\n".join(map(json.dumps, gold)), encoding="utf-8")
    with (here / "a.toml").open("a", encoding="utf-8") as file:
        file.write('\n[quality]\ngold = "gold.jsonl"\ngold_column = "topic"\nevery = 5\n')
    config = Settings.load(here / "a.toml")
    assert run(config).labelled == 40
    done = exported(here / "run", here / "data")
    assert done.gold == 10
    assert {where(here / "data")[f"r{at}"] for at in range(10)} == {"test"}
    assert Path.cwd() == here


def test_chat_with_another_prompt_than_the_runs_is_refused(here: Path) -> None:
    run(settings(here, TASK))
    settings(here, {**TASK, "prompt": "Another: {{ text }}"})
    with pytest.raises(SetupError, match=r"^--chat: a.toml has another prompt than the run"):
        export("run", "data", chat=True)
    assert not Path("data").exists()


def test_chat_lines_hold_the_rows_of_a_record(here: Path) -> None:
    parts = {
        "type": "object",
        "properties": {
            "lang": {"type": "string", "enum": ["en", "de"]},
            "parts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"what": {"type": "string", "enum": ["a", "b"]}},
                    "required": ["what"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["lang", "parts"],
        "additionalProperties": False,
    }
    function = {"name": "split_up", "parameters": parts}
    run(settings(here, {"prompt": "{{ text }}", "rows": "parts", "function": function}))
    exported(here / "run", here / "data", chat=True)
    rows: dict[str, list[str]] = {}
    for row in read(here / "run")["labels"]:
        rows.setdefault(row["text"], []).append(row["what"])
    lines = [line for found in read(here / "data", "jsonl").values() for line in found]
    for line in lines:
        told = json.loads(line["messages"][-1]["tool_calls"][0]["function"]["arguments"])
        assert [one["what"] for one in told["parts"]] == rows[line["messages"][-2]["content"]]
        assert list(told) == ["lang", "parts"]
    assert len(lines) == len(rows) > 20


@pytest.mark.parametrize("rows", [None, "calls"])
@pytest.mark.parametrize("call", ["any", "all"])
def test_chat_lines_hold_all_calls_of_a_record(here: Path, call: str, rows: str | None) -> None:
    """Of two functions, one of which has a name that begins like a column of the other."""
    tools = [
        {"name": "note", "labels": {"topic_kind": ["bill", "login"]}},
        {"name": "note_topic", "labels": {"mood": ["good", "bad"]}},
    ]
    task = {"prompt": "{{ text }}", "call": call, "tools": tools, **({"rows": rows} if rows else {})}
    labelled = run(settings(here, task)).labelled
    done = exported(here / "run", here / "data", chat=True)
    assert (sum(done.records.values()), done.left_out) == (labelled, {})
    given: dict[str, list[tuple[str, str]]] = {}
    for row in read(here / "run")["labels"]:
        pairs = (("note", row["note_topic_kind"]), ("note_topic", row["note_topic_mood"]))
        given.setdefault(row["text"], []).extend(pair for pair in pairs if pair[1])
    for line in [line for lines in read(here / "data", "jsonl").values() for line in lines]:
        assert line["parallel_tool_calls"] is True
        *_, asked, answer = line["messages"]
        calls = [one["function"] for one in answer["tool_calls"]]
        told = [(one["name"], *json.loads(one["arguments"]).values()) for one in calls]
        assert sorted(told) == sorted(given[asked["content"]])
        assert len({one["id"] for one in answer["tool_calls"]}) == len(calls)


def test_conversations_and_media_are_no_chat_lines(here: Path) -> None:
    run(settings(here, {**TASK, "max_turns": 2}))
    with pytest.raises(SetupError, match=r"--chat: conversations of several turns \(task.max_turns\)"):
        export("run", "data", chat=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"chat": True, "text": "text"}, "--chat and --text cannot be combined"),
        ({"chat": True, "format": "csv"}, "--chat writes JSON Lines, so --format cannot be csv"),
        ({"format": "xml"}, "--format: got 'xml'; expected csv, jsonl, parquet"),
        ({"near_duplicates": 0.2}, "--near-duplicates: got 0.2; expected a similarity of 0.5 to 1, or off"),
        ({"table": "t"}, "table needs a database, and data is not"),
        ({"group": "custmer"}, r"--group: no record has 'custmer' \(did you mean 'customer'\?\)"),
        ({"text": "txt"}, r"--text: no record has 'txt' \(did you mean 'text'\?\)"),
        ({"gold": "nowhere.csv"}, "nowhere.csv"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], told: str, tickets: Path, here: Path) -> None:
    with pytest.raises(SetupError, match=told):
        export(tickets, "data", **options)
    assert not Path("data").exists()


# -- Hugging Face ------------------------------------------------------------------------------------------------------


def test_a_dataset_has_a_card(tickets: Path, tmp_path: Path) -> None:
    done = exported(tickets, tmp_path, hf=True)
    head, body = (tmp_path / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n")
    assert head == "\n".join(
        [
            "# license: choose one before you publish this",
            "configs:",
            "- config_name: default",
            "  data_files:",
            "  - split: train",
            "    path: train.jsonl",
            "  - split: validation",
            "    path: val.jsonl",
            "  - split: test",
            "    path: test.jsonl",
            "dataset_info:",
            "  features:",
            *('  - name: "id"', "    dtype: string", '  - name: "text"', "    dtype: string"),
            *('  - name: "customer"', "    dtype: string", '  - name: "label"', "    dtype:", "      class_label:"),
            "        names:",
            *("          '0': \"bill\"", "          '1': \"login\"", "          '2': \"other\""),
        ]
    )
    assert "`some-model`" in body
    assert re.search(r"\| validation \| 40 \| 40 \|", body)
    assert len(read(tmp_path, "jsonl")["train"]) == done.records["train"]
    exported(tickets, tmp_path, hf=True, text="text")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"- name: (.*)", text) == ['"label"', '"text"']
    assert "class_label" in text


def test_a_card_knows_lists_of_labels(tmp_path: Path) -> None:
    """With one column whose type it did not name, `load_dataset` guessed the types of all."""
    some = texts(range(20))
    tags: list[Any] = [["x", "y"], [], None, ["y"]]

    def card(name: str, tags: list[Any]) -> str:
        outcomes = [
            labelled(at, {"id": at, "text": some[at]}, {"tags": tags[at % len(tags)], "label": "ab"[at % 2]})
            for at in range(20)
        ]
        exported(
            made(tmp_path / name, outcomes, labels=("tags", "label")), tmp_path / f"{name}-data", hf=True, by="label"
        )
        return (tmp_path / f"{name}-data" / "README.md").read_text(encoding="utf-8")

    listed = '  - name: "tags"\n    sequence: string\n  - name: "label"\n    dtype:\n      class_label:'
    assert listed in card("lists", tags)
    assert "features" not in card("odd", [*tags, "x"])


def test_a_persons_answer_is_what_is_exported(tmp_path: Path) -> None:
    """Also of a record for which the model had no label, and in the splits, which are by class."""
    some = texts(range(40))
    outcomes = [labelled(at, {"id": f"r{at:05}", "text": some[at]}) for at in range(39)]
    lost = labelled(39, {"id": "r00039", "text": some[39]})
    lost = replace(lost, status=Status.REJECTED, label=None, problem=Problem("refused", "no"))
    run_dir = made(tmp_path / "run", [*outcomes, lost])
    with open_reviews(run_dir) as reviews:
        for one in (*outcomes[:19], lost):
            about, record = label_digest(one.label), one.record
            new = {"label": "b"}
            reviews.add_answers([Answer(record.key, "ann", about, one.label, new, record=record.digest)])
    done = exported(run_dir, tmp_path / "data")
    assert done.classes == {"b": {"train": 16, "val": 2, "test": 2}, "a": {"train": 16, "val": 2, "test": 2}}
    found = {row["id"]: row["label"] for rows in read(tmp_path / "data").values() for row in rows}
    assert found == {f"r{at:05}": "b" if at < 19 or at == 39 else "a" for at in range(40)}
    done = exported(run_dir, tmp_path / "reviewed", where="reviewed")
    assert (sum(done.records.values()), done.left_out) == (20, {"where": 20})


def test_a_certificate_stands_beside_the_files_and_in_the_card(tmp_path: Path) -> None:
    some = texts(range(30))
    run_dir = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}, "ab"[at % 2]) for at in range(30)])
    bare = exported(run_dir, tmp_path / "data", hf=True)
    assert bare.certificate is None
    assert "certified  no: labelpipe certify" in repr(bare)
    seen = LabelDigest()
    list(read_column(run_dir / "ledger.db", "label", digest=seen))
    given = {"column": "label", "certified": True, "labels": seen.digest, "last_seq": seen.last_seq, "error": 0.05}
    given |= {
        "confidence": 0.95,
        "bound": 0.03,
        "void": "",
        "text": "At most 5 % are wrong.",
        "scores": list(CERTAINTY),
    }
    write_certificate(run_dir, given)
    done = exported(run_dir, tmp_path / "data", hf=True)
    assert json.loads((tmp_path / "data" / "certificate.json").read_text(encoding="utf-8")) == given == done.certificate
    assert "At most 5 % are wrong." in (tmp_path / "data" / "README.md").read_text(encoding="utf-8")
    assert "at most 5% of all labels in label are wrong, with 95% confidence" in repr(done)


def test_examples_of_the_prompt_are_told(tmp_path: Path) -> None:
    some = texts(range(20))
    run_dir = made(tmp_path / "run", [labelled(at, {"id": at, "text": some[at]}) for at in range(20)])
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    manifest["fingerprint"]["examples"] = [
        {"text": some[3].upper(), "label": {"label": "a"}},
        {"text": "x", "label": {}},
    ]
    (run_dir / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert exported(run_dir, tmp_path / "data").examples == 1
