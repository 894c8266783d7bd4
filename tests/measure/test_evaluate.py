"""Labels against gold: the figures, what is left out of them and said, and values as people write them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from measure.measured_runs import Row, labelled, listed, written
from oracles import metrics

from pipeline import evaluate
from pipeline.errors import SetupError
from pipeline.gold import MeasuredField
from pipeline.measure.field_tally import FieldTally

TOPICS = ["billing", "login", "refund", "other thing"]


def tickets(count: int = 60) -> list[Row]:
    """Records with a topic that is said and one that is right, which are the same three times out of four."""
    draw = Random(3)
    rows = []
    for number in range(count):
        gold = draw.choice(TOPICS)
        said = gold if draw.random() < 0.75 else draw.choice(TOPICS)
        rows.append({"id": f"t{number}", "text": f"ticket {number}", "said_topic": said, "gold_topic": gold})
    return rows


@pytest.fixture(scope="module")
def run_of_topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of tickets; the last record has no text, and so no label."""
    rows = [*tickets(), {"id": "t60", "text": "", "said_topic": "login", "gold_topic": "login"}]
    return labelled(tmp_path_factory.mktemp("topics"), rows, {"topic": listed(*TOPICS)})


def gold_file(folder: Path, rows: list[Row]) -> Path:
    with (folder / "gold.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "topic"])
        writer.writerows([row["id"], row["gold_topic"]] for row in rows)
    return folder / "gold.csv"


def test_the_figures_are_those_of_scikit_learn(run_of_topics: Path, tmp_path: Path) -> None:
    rows = tickets()
    found = evaluate(run_of_topics, gold_file(tmp_path, rows), column="topic").columns["topic"]
    gold, said = [row["gold_topic"] for row in rows], [row["said_topic"] for row in rows]
    report: Any = metrics.classification_report(gold, said, output_dict=True)
    assert found["n"] == 60
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(gold, said))
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(gold, said))
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert list(found["classes"]) == TOPICS, "in the order of the task"
    for name, one in found["classes"].items():
        assert one == pytest.approx({"f1" if k == "f1-score" else k: v for k, v in report[name].items()})
    matrix = metrics.confusion_matrix(gold, said, labels=TOPICS)
    for at, name in enumerate(TOPICS):
        assert [found["confusion"][name].get(other, 0) for other in TOPICS] == matrix[at].tolist()


def test_gold_in_the_input_gives_the_same_as_a_file(run_of_topics: Path, tmp_path: Path) -> None:
    in_file = evaluate(run_of_topics, gold_file(tmp_path, tickets()))
    for options in ({"column": "gold_topic"}, {"column": "gold_topic", "field": "topic"}, {}):
        in_input = evaluate(run_of_topics, **options)
        assert in_input["gold"]["columns"] == {"gold_topic": "topic"}
        for name in ("n", "accuracy", "classes", "kappa", "confusion"):
            assert in_input.columns["topic"][name] == in_file.columns["topic"][name]
    assert in_input.columns["topic"]["unlabelled"] == {"n": 1, "rejected": 1, "codes": {"empty_text": 1}}


def test_columns_are_found_by_their_names(run_of_topics: Path, tmp_path: Path) -> None:
    for head, column in (("id,gold", "gold"), ("id,topic_gold", "topic_gold"), ("id,gold_topic,topic", "topic")):
        cells = ",login" * head.count(",")
        gold = written(tmp_path / "gold.csv", f"{head}\nt1{cells}\nt2{cells}\n")
        assert evaluate(run_of_topics, gold)["gold"]["columns"] == {column: "topic"}
    with pytest.raises(SetupError, match=r"--column: gold_topic and topic are both about topic"):
        evaluate(run_of_topics, gold, column=["gold_topic", "topic"])


def test_the_only_column_beside_those_of_the_input_is_gold(
    run_of_topics: Path, run_of_kinds: Path, tmp_path: Path
) -> None:
    for text in ("id,truth\nt1,login\n", "key,text,truth\nt1,ticket 1,login\n"):
        found = evaluate(run_of_topics, written(tmp_path / "gold.csv", text))
        assert (found["gold"]["columns"], found.columns["topic"]["n"]) == ({"truth": "topic"}, 1)
    for run, head in ((run_of_topics, "id,truth,other"), (run_of_kinds, "id,truth")):
        with pytest.raises(SetupError, match="no column has the name of a label field"):
            evaluate(run, written(tmp_path / "gold.csv", f"{head}\nt1{',login' * head.count(',')}\n"))


def test_what_is_in_no_figure_is_told(run_of_topics: Path, tmp_path: Path) -> None:
    text = "key;topic\nt1;login\nt1;billing\nnobody;login\n;login\nt2;\nt60;login\nt3; \nt4;Billing\nt5;nonsense\n"
    found = evaluate(run_of_topics, written(tmp_path / "gold.csv", text, "utf-8-sig"))
    gold = found["gold"]
    assert (gold["rows"], gold["compared"], gold["key"]) == (9, 4, "key")
    assert (gold["repeated"], gold["repeated_keys"]) == (1, ["t1"])
    assert (gold["not_in_run"], gold["not_in_run_keys"]) == (1, ["nobody"])
    assert (gold["without_key"], gold["not_answered"]) == (1, 2)
    topic = found.columns["topic"]
    assert topic["n"] == 3
    assert topic["unlabelled"]["n"] == 1
    assert topic["no_label"] == {"n": 2, "values": {"Billing": 1, "nonsense": 1}, "like": {"Billing": "billing"}}
    told = repr(found)
    for words in (
        "1 record with gold has no label and is in no figure: empty_text 1",
        "2 values of gold are no label of the task and count as wrong: Billing 1 (the label is billing), nonsense 1",
        "1 key of gold has no outcome in this run: nobody",
        "1 row of gold left out, because the key came before: t1",
        "no key      1 row of gold, the first at",
        "2 rows of gold have no value",
        "SIMULATED",
    ):
        assert words in told


def test_the_disagreements_are_a_table_that_is_safe_in_a_spreadsheet(run_of_topics: Path, tmp_path: Path) -> None:
    path = tmp_path / "differ.csv"
    found = evaluate(run_of_topics, gold_file(tmp_path, tickets()), disagreements=path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [row for row in tickets() if row["gold_topic"] != row["said_topic"]]
    assert [(row["key"], row["text"], row["gold"], row["label"], row["field"]) for row in rows] == [
        (row["id"], row["text"], row["gold_topic"], row["said_topic"], "topic") for row in wrong
    ]
    assert found["disagreements"]["n"] == len(wrong)
    assert [one["key"] for one in found["disagreements"]["first"]] == [row["id"] for row in wrong[:10]]
    assert f"{len(wrong)} disagreements; the first 5" in repr(found)
    with pytest.raises(SetupError, match="is a file of the run"):
        evaluate(run_of_topics, disagreements=run_of_topics / "labels.csv")
    gold = gold_file(tmp_path, tickets())
    with pytest.raises(SetupError, match="is the gold file"):
        evaluate(run_of_topics, gold, disagreements=gold)
    with pytest.raises(SetupError, match="cannot be written"):
        evaluate(run_of_topics, disagreements=tmp_path / "no" / "where.csv")
    assert [file.name for file in tmp_path.iterdir() if ".part" in file.name] == []


def test_the_figures_are_kept_with_the_digest_of_the_gold(run_of_topics: Path, tmp_path: Path) -> None:
    path = gold_file(tmp_path, tickets())
    found = evaluate(run_of_topics, path)
    last = json.loads((run_of_topics / "evaluations.jsonl").read_text("utf-8").splitlines()[-1])
    assert last["gold"]["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert last["columns"] == found.columns
    assert last["at"][:2] == "20"
    assert last["disagreements"]["first"] == [], "no texts of records"


def test_examples_prove_nothing(tmp_path: Path) -> None:
    rows = tickets(20)
    shown = [
        {"text": rows[3]["text"], "label": {"topic": "login"}},  # the same text
        {"id": "t5", "text": "in other words", "label": {"topic": "refund"}},  # the same key
        {"text": "ticket of nobody", "label": {"topic": "refund"}},
    ]
    run_dir = labelled(tmp_path, rows, {"topic": listed(*TOPICS)}, examples=shown)
    for found in (evaluate(run_dir), evaluate(run_dir, gold_file(tmp_path, rows))):
        topic = found.columns["topic"]
        assert (topic["n"], topic["examples"]) == (18, 2)
        assert "2 records left out, because the model is shown them with the right label" in repr(found)


def test_gold_that_chose_the_prompt_is_left_out(run_of_topics: Path, tmp_path: Path) -> None:
    keys = written(tmp_path / "chosen.txt", "t1\nt2\nnobody\n")
    found = evaluate(run_of_topics, gold_file(tmp_path, tickets()), without=keys)
    topic = found.columns["topic"]
    assert (topic["n"], topic["set_aside"]) == (58, 2)
    assert "2 records left out, because the prompt was chosen with them" in repr(found)
    with pytest.raises(SetupError, match=r"--without: .*no.txt is not there"):
        evaluate(run_of_topics, without=tmp_path / "no.txt")


# -- other kinds of fields -------------------------------------------------------------------------------------------

NUMBER = {"type": "number"}
KINDS = {
    "stars": listed(1, 2, 3, 4, 5),
    "urgent": listed(True, False),
    "tags": {"type": "array", "items": listed("a", "b", "c d")},
    "size": NUMBER,
    "name": {"type": "string"},
    "confidence": NUMBER,
}
SAID: list[Row] = [
    {"stars": 5, "urgent": True, "tags": ["a", "b"], "size": 1.5, "name": "Ann Lee", "confidence": 0.95},
    {"stars": 3, "urgent": False, "tags": [], "size": 20, "name": "O'Hara, Jo", "confidence": 0.55},
    {"stars": 1, "urgent": True, "tags": ["c d"], "size": 7, "name": "이 제품", "confidence": 0.9},
    {"stars": 2, "urgent": False, "tags": ["a"], "size": 0, "name": "Zoë", "confidence": 0.6},
]


@pytest.fixture(scope="module")
def run_of_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"id": number, "text": f"text {number}", **{f"said_{name}": value for name, value in one.items()}}
        for number, one in enumerate(SAID)
    ]
    return labelled(tmp_path_factory.mktemp("kinds"), rows, KINDS)


GOLD_OF_KINDS = """\
id;stars;urgent;tags;size;name
0;5.0;TRUE;b|a;1,500;ann  lee
1;4;true;[];19.0;O'Hara, Jo
2;1;True;"[""c d""]";7.0;이 제품
3;2;FALSE;"['a', 'b']";1.5;Zoe
"""


def test_each_kind_has_its_own_measures(run_of_kinds: Path, tmp_path: Path) -> None:
    found = evaluate(run_of_kinds, written(tmp_path / "gold.csv", GOLD_OF_KINDS)).columns
    assert list(found) == ["stars", "urgent", "tags", "size", "name"]
    stars, urgent, tags, size, name = found.values()
    assert (stars["kind"], stars["right"], stars["mae"], stars["within_one"]) == ("ordered", 3, 0.25, 1.0)
    assert stars["spearman"] == pytest.approx(1.0)
    assert (urgent["kind"], urgent["right"]) == ("class", 3)
    assert urgent["confusion"] == {"true": {"true": 2, "false": 1}, "false": {"false": 1}}
    assert (tags["kind"], tags["right"], tags["subset_accuracy"]) == ("set", 3, 0.75)
    assert tags["jaccard"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert tags["classes"]["b"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert (size["kind"], size["n"], size["mae"]) == ("number", 3, pytest.approx((1 + 0 + 1.5) / 3))
    assert size["no_label"] == {"n": 1, "values": {"1,500": 1}, "like": {}}
    assert (name["kind"], name["exact"], name["normalised"]) == ("text", 0.5, 0.75)


def test_confidence_is_compared_with_what_is_right(run_of_kinds: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", GOLD_OF_KINDS)
    found = evaluate(run_of_kinds, gold, column="stars")
    calibration = found.columns["stars"]["calibration"]
    assert [(one["confidence"], one["accuracy"], one["n"]) for one in calibration["bins"]] == [
        (pytest.approx(0.575), 0.5, 2),
        (pytest.approx(0.9), 1.0, 1),
        (pytest.approx(0.95), 1.0, 1),
    ]
    assert calibration["expected_error"] == pytest.approx((2 * 0.075 + 0.1 + 0.05) / 4)
    assert "expected calibration error 0.075" in repr(found)
    other = evaluate(run_of_kinds, gold, column="stars", confidence="size").columns["stars"]["calibration"]
    assert (other["n"], other["left_out"]) == (1, 3), "sizes are no confidences"


def test_values_may_have_types_in_the_gold_and_an_order_in_the_task(tmp_path: Path) -> None:
    rows = [
        {"id": f"r{number}", "text": f"text {number}", "said_level": said, "said_code": str(number)}
        for number, said in enumerate(["low", "middle", "high", "high"])
    ]
    properties = {"level": listed("low", "middle", "high"), "code": listed(*map(str, range(4)))}
    run_dir = labelled(tmp_path, rows, properties)
    gold = "".join(
        json.dumps({"id": f"r{n}", "level": level, "code": n, "more": {}}) + "\n"
        for n, level in enumerate(["low", "high", "high", "low"])
    )
    path = written(tmp_path / "gold.jsonl", gold + '{"id": "r9"}\n')
    found = evaluate(run_dir, path, ordered="level").columns
    assert found["code"]["accuracy"] == 1.0, "1 in JSON is the label '1'"
    level = found["level"]
    assert (level["kind"], level["right"], level["mae"], level["within_one"]) == ("ordered", 2, 0.75, 0.75)
    assert "mae" not in evaluate(run_dir, path).columns["level"]
    with pytest.raises(SetupError, match=r"no such label field .did you mean 'level'"):
        evaluate(run_dir, path, ordered="levels")


# -- several rows a record, and runs without keys ----------------------------------------------------------------------

ENTITIES = {
    "entities": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "kind": listed("person", "place")},
            "required": ["name", "kind"],
        },
    }
}


@pytest.fixture(scope="module")
def run_of_entities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "id": "n1",
            "text": "Ann in Rome",
            "said_entities": [{"name": "Ann", "kind": "person"}, {"name": "Rome", "kind": "place"}],
        },
        {"id": "n2", "text": "Bo", "said_entities": [{"name": "Bo", "kind": "place"}]},
        {"id": "n3", "text": "nobody", "said_entities": []},
    ]
    return labelled(tmp_path_factory.mktemp("entities"), rows, ENTITIES, rows="entities")


def test_gold_may_name_the_rows_of_a_record(run_of_entities: Path, tmp_path: Path) -> None:
    text = "id,row_key,kind\nn1,n1#0,person\nn1,n1#1,place\nn2,n2#0,person\nn3,n3#0,place\nn1,n1#0,place\n"
    found = evaluate(run_of_entities, written(tmp_path / "gold.csv", text))
    kind = found.columns["kind"]
    assert (found["gold"]["key"], found["gold"]["repeated"]) == ("row_key", 1)
    assert (kind["n"], kind["right"]) == (4, 2)
    assert kind["confusion"]["place"] == {"place": 1, "(none)": 1}, "a row that is not there has no label"


def test_or_the_record_and_then_its_rows_are_one_list(run_of_entities: Path, tmp_path: Path) -> None:
    text = "id,name,kind\nn2,Bo,person\nn1,Rome,place\nn1,Ann,person\n"
    found = evaluate(run_of_entities, written(tmp_path / "gold.csv", text)).columns
    assert (found["name"]["kind"], found["name"]["n"], found["name"]["right"]) == ("set", 2, 2)
    assert found["kind"]["right"] == 1
    assert found["name"]["micro_f1"] == 1.0


def test_without_a_key_a_record_is_named_by_its_place(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "said_topic": "login"} for n in range(3)]
    run_dir = labelled(tmp_path, rows, {"topic": listed(*TOPICS)}, key=None)
    place = f"{tmp_path}/in.jsonl"
    found = evaluate(run_dir, written(tmp_path / "gold.csv", f"key,topic\n{place}:1,login\n{place}:3,billing\n"))
    assert (found.columns["topic"]["n"], found.columns["topic"]["right"]) == (2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "id;topic;note\nt1;login;a, b\nt2;refund;c, d\n",  # even by commas, too
        "sep=;\nid;topic\nt1;login\nt2;refund\n",
        "id, topic\nt1, login\nt2, refund\n",
        "id\ttopic\nt1\tlogin\nt2\trefund\n",
        '\ufeff"topic"|"id"\n"login"|"t1"\n"refund"|"t2"\n',
        "key,topic\r\nt1,login\r\nt2,refund",
        '{"topic": "login", "id": "t1"}\n{"topic": "refund", "id": "t2"}\n',
        '[{"topic": "login", "id": "t1"}, {"topic": "refund", "id": "t2"}]',
    ],
)
def test_gold_is_read_in_any_dialect(run_of_topics: Path, tmp_path: Path, text: str) -> None:
    name = f"gold.{'json' if text[0] == '[' else 'jsonl' if text[0] == '{' else 'csv'}"
    found = evaluate(run_of_topics, written(tmp_path / name, text))
    assert (found["gold"]["rows"], found.columns["topic"]["n"]) == (2, 2)


@pytest.mark.parametrize("written_as", [lambda text: gzip.compress(text.encode()), lambda text: text.encode("utf-16")])
def test_spaces_in_gold_are_left_out_in_any_encoding(
    run_of_topics: Path, tmp_path: Path, written_as: Callable[[str], bytes]
) -> None:
    (tmp_path / "gold.csv").write_bytes(written_as("id; topic\nt1; login\nt2; refund\n"))
    found, plain = (
        evaluate(run_of_topics, path).columns["topic"]
        for path in (tmp_path / "gold.csv", written(tmp_path / "plain.csv", "id;topic\nt1;login\nt2;refund\n"))
    )
    assert found["accuracy"] == plain["accuracy"] > 0


def test_hostile_values_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formulas, marks of a terminal, and labels that differ in blanks only."""
    topics = ["=1+1", "+a", "\x1b[31mred", "a", "a "]
    rows = [
        {"id": f"={n}", "text": f"=cmd {n} \x1b]0;title\x07 <script> \u202e", "said_topic": topics[(n + 1) % 5]}
        for n in range(5)
    ]
    run_dir = labelled(tmp_path, rows, {"topic": listed(*topics)})
    text = "id,topic\n" + "".join(f"'={n},{chr(39) if n < 2 else ''}{topics[n]}\n" for n in range(5))
    path = tmp_path / "differ.csv"
    found = evaluate(run_dir, written(tmp_path / "gold.csv", text), disagreements=path)
    assert (found.columns["topic"]["n"], found.columns["topic"]["right"]) == (5, 0)
    assert found.columns["topic"]["no_label"]["n"] == 0
    assert "\x1b" not in repr(found)
    assert "'a ' -> =1+1: 1" not in repr(found), "the matrix has it"
    monkeypatch.setenv("COLUMNS", "50")
    assert "'a ' -> =1+1: 1" in repr(found)
    with path.open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+"))] == []


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (
            "id,topc,by\nt1,login,me\n",
            {},
            r"no column has the name of a label field: expected topic.*did you mean 'topc'",
        ),
        ("id,a\nt1,login\n", {"column": "b"}, r"gold: .*gold.csv: there is no column 'b'.*it has id, a"),
        ("idd,topic\nt1,login\n", {}, r"no column holds the records' keys: expected 'id' or 'key'.*did you mean 'idd'"),
        (
            "id,topic\nx1,login\n",
            {},
            r"no key of .*gold.csv is one of .*'id' has 'x1'; the run names its records",
        ),
        ("id,topic\nt1,\n", {}, r"has no value in topic"),
        ("id,a\nt1,x\n", {"column": ["a"], "field": ["topics"]}, r"--field topics: .*did you mean 'topic'"),
        ("id,a\nt1,x\n", {"column": ["a"], "field": ["topic", "b"]}, r"got 1 --column and 2 --field"),
        ("", {}, r"gold: "),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run_of_topics: Path, tmp_path: Path, text: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(SetupError, match=told):
        evaluate(run_of_topics, written(tmp_path / "gold.csv", text), **options)


def test_a_field_of_the_input_that_is_not_there(run_of_topics: Path, run_of_kinds: Path) -> None:
    with pytest.raises(SetupError, match=r"--column gold: the records of .* have no such field.*--gold FILE"):
        evaluate(run_of_topics, column="gold")
    with pytest.raises(SetupError, match=r"name the gold: --gold FILE, or --column NAME"):
        evaluate(run_of_kinds)
    with pytest.raises(SetupError, match=r"name its label field with --field; the run has stars, urg"):
        evaluate(run_of_kinds, column="right")
    with pytest.raises(SetupError, match=r"gold: 'nowhere.csv' cannot be read"):
        evaluate(run_of_topics, "nowhere.csv")


def test_a_label_that_is_no_number_is_wrong_and_an_empty_column_is_no_gold(run_of_kinds: Path, tmp_path: Path) -> None:
    tally = FieldTally(MeasuredField("size", "number"), "size")
    assert [tally.add("3", 3), tally.add("3", None)] == [True, False]
    facts = tally.facts()
    assert (facts["n"], facts["accuracy"], facts["mae"], facts["no_value"]) == (2, 0.5, 0, 1)
    told = repr(evaluate(run_of_kinds, written(tmp_path / "gold.csv", "id,stars,size,name\n0,5,big,\n")))
    assert "name: no record that counts has gold" in told
    assert "size: no record with gold can be compared\n  no number   1 value of gold is no number" in told
