"""Answers come back from any file: what a spreadsheet changes is no answer, and what is not certain is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from review_runs import TOPICS, again, answer, do, label_of, labelled_run, read, settings, write, write_input

from pipeline import Request, Response, RunOptions, run, status, verify
from pipeline.errors import LabelpipeError
from pipeline.review import DrawOptions, draw_to_file, take_answers
from pipeline.show import answers_lines
from pipeline.store import RunDir, open_reviews

Row = dict[str, str]


def draw(folder: Path, name: str = "draw.csv", **options: Any) -> list[Row]:
    do(draw_to_file(folder / "run", DrawOptions(**options), folder / name))
    return read(folder / name)


def take(folder: Path, path: Path, by: str = "ann", **more: Any) -> dict[str, Any]:
    return do(take_answers(folder / "run", path, by=by, **more))


def labels(folder: Path) -> dict[str, Row]:
    return {row["id"]: row for row in read(folder / "run" / "labels.csv")}


def other(row: Row) -> str:
    """Another topic than the row's."""
    return next(topic for topic in TOPICS if topic != row["topic"])


def counts(facts: dict[str, Any]) -> dict[str, int]:
    names = ("answers", "corrected", "confirmed", "unclear", "known", "unchanged", "unanswered")
    return {name: facts[name] for name in names if facts[name]}


def test_a_draw_comes_back_and_its_corrections_are_in_the_files(folder: Path) -> None:
    rows = draw(folder, sample=6)
    rows[0]["topic"] = new = other(rows[0])
    rows[1] |= {"topic": "", "urgency": "", "confidence": "", "unclear": "x", "note": "both?"}
    rows[2] |= {"topic": "", "urgency": "", "confidence": ""}
    facts = take(folder, write(folder / "back.csv", rows[:5]))
    assert counts(facts) == {"answers": 4, "corrected": 1, "confirmed": 2, "unclear": 1, "unanswered": 1}
    assert (facts["draw"], facts["blind"], facts["files"]) == (1, False, "written")
    assert answers_lines(facts)[0] == "4 new answers of ann to draw 1."
    assert labels(folder)[rows[0]["id"]]["topic"] == new
    with open_reviews(folder / "run") as reviews:
        items = {item.key: item.answer for item in reviews.items_of(1)}
    assert [items[row["id"]] is not None for row in rows] == [True, True, False, True, True, False]
    note = items[rows[1]["id"]]
    assert note is not None
    assert (note.new, note.unclear, note.note, note.by) == ({}, True, "both?", "ann")
    right = items[rows[3]["id"]]
    assert right is not None
    assert right.new is None
    report = verify(folder / "run")
    assert report.ok, report
    assert "1 correction, all in the rows; 2 labels were confirmed." in str(report)
    assert counts(take(folder, folder / "back.csv")) == {"known": 4, "unanswered": 1}


def test_a_blind_draw_is_answered_with_what_agrees_too(folder: Path) -> None:
    rows = draw(folder, sample=4, blind=True)
    truth = [label_of(int(row["n"])) for row in rows]
    for row, label in zip(rows, truth, strict=True):
        row["topic"] = label["topic"]
    rows[0]["topic"] = other(rows[0])
    do(draw_to_file(folder / "run", DrawOptions(), folder / "again.csv", draw=1))
    assert (folder / "again.csv").read_bytes() == (folder / "draw.csv").read_bytes(), "a draw that is there already"
    facts = take(folder, write(folder / "back.csv", [{"id": row["id"], "topic": row["topic"]} for row in rows]))
    assert counts(facts) == {"answers": 4, "corrected": 1, "confirmed": 3}
    # What the page would show: Wilson's interval of three in four.
    assert "  topic: accuracy 75.0%, 95% interval 30.1% to 95.4%, from 4 blind answers" in answers_lines(facts)
    with open_reviews(folder / "run") as reviews:
        assert {answer.blind for answer in reviews.answers()} == {True}
        assert reviews.answers()[1].new == {"topic": truth[1]["topic"]}


def with_bom(path: Path, rows: list[Row]) -> None:
    """As Excel saves "CSV UTF-8" where the comma is a decimal sign: BOM, semicolons, CRLF, TRUE, 1,0 for 1."""
    for row in rows:
        row["urgency"], row["confidence"] = f"{row['urgency']},0", row["confidence"].replace(".", ",")
    write(path, rows, "utf-8-sig", delimiter=";", lineterminator="\r\n")


def reordered(path: Path, rows: list[Row]) -> None:
    write(path, [{"mine": "x", **row} for row in reversed(rows)], lineterminator="\n")


def unescaped(path: Path, rows: list[Row]) -> None:
    for row in rows:
        row["text"] = row["text"].removeprefix("'")
    write(path, rows, delimiter="\t")


def as_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps({**row, "urgency": int(row["urgency"])}) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("saved", "name"),
    [(with_bom, "a.csv"), (reordered, "a.csv"), (unescaped, "a.tsv"), (as_lines, "a.jsonl")],
)
def test_a_file_written_otherwise_says_the_same(
    folder: Path, saved: Callable[[Path, list[Row]], None], name: str
) -> None:
    rows = draw(folder, sample=8)
    rows[0]["topic"] = new = other(rows[0])
    saved(folder / name, rows)
    assert counts(take(folder, folder / name)) == {"answers": 8, "corrected": 1, "confirmed": 7}
    assert labels(folder)[rows[0]["id"]]["topic"] == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topic": "Biling"}, r"line 3 \(T\d+\): 'Biling' is not a value of topic \(did you mean 'billing'\?\)"),
        ({"urgency": "7"}, r"line 3 .*'7' is not a value of urgency: expected integer"),
        ({"urgency": "2.5"}, "'2.5' is not a value of urgency"),
        ({"confidence": "high"}, "'high' is not a value of confidence: expected number"),
        ({"id": "T999"}, r"no record of the run has these keys: line 3 \('T999'\)"),
    ],
)
def test_what_no_label_can_be_is_refused_and_nothing_is_taken(folder: Path, change: Row, message: str) -> None:
    rows = draw(folder, sample=5)
    rows[0]["topic"] = other(rows[0])
    rows[1] |= change
    with pytest.raises(LabelpipeError, match=message):
        take(folder, write(folder / "back.csv", rows))
    with open_reviews(folder / "run") as reviews:
        assert reviews.answers() == []


def test_a_record_that_is_answered_twice_is_refused_where_the_answers_differ(folder: Path) -> None:
    rows = draw(folder, sample=3)
    same = take(folder, write(folder / "same.csv", [*rows, rows[1]]))
    assert counts(same) == {"answers": 3, "confirmed": 3}
    twice = {**rows[1], "topic": other(rows[1])}
    with pytest.raises(LabelpipeError, match=rf"lines 3 and 5 \({rows[1]['id']}\)"):
        take(folder, write(folder / "twice.csv", [*rows, twice]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["id", "text"], "no column is a label"), (["topic", "urgency"], "nobody knows which record")],
)
def test_a_file_without_keys_or_labels_is_refused(folder: Path, columns: list[str], message: str) -> None:
    rows = draw(folder, sample=3)
    with pytest.raises(LabelpipeError, match=message):
        take(folder, write(folder / "back.csv", [{name: row[name] for name in columns} for row in rows]))


def test_an_edited_labels_csv_gives_what_differs(folder: Path) -> None:
    """The file in the run folder itself too: it is moved aside, and made again with the corrections."""
    path = folder / "run" / "labels.csv"
    rows = read(path)
    rows[4]["topic"] = new = other(rows[4])
    write(path, [rows[4], *rows[:4], *rows[6:]], "utf-8-sig", delimiter=";")
    facts = take(folder, path)
    assert counts(facts) == {"answers": 1, "corrected": 1, "unchanged": 79}
    assert facts["draw"] is None
    assert "moved, untouched" in facts["told"]
    assert labels(folder)[rows[4]["id"]]["topic"] == new
    assert len(labels(folder)) == 81
    assert verify(folder / "run").ok


def test_an_older_labels_csv_takes_no_correction_back(folder: Path) -> None:
    """Two people have copied the file in the morning; later, one of them takes an answer back."""
    path = folder / "run" / "labels.csv"
    rows = read(path)
    hers, his = ([dict(row) for row in rows] for _ in range(2))
    hers[4]["topic"], his[6]["topic"] = other(rows[4]), other(rows[6])
    take(folder, write(folder / "hers.csv", hers))
    facts = take(folder, write(folder / "his.csv", his), by="bob")
    assert (counts(facts), facts["outdated"]) == ({"answers": 1, "corrected": 1, "unchanged": 79}, 1)
    assert "1 older than a correction, which stays" in "\n".join(answers_lines(facts))
    assert [row["topic"] for row in read(path)][4:7] == [hers[4]["topic"], rows[5]["topic"], his[6]["topic"]]
    assert take(folder, write(folder / "hers.csv", rows))["outdated"] == 2  # her own too
    back = [{"id": rows[at]["id"], "topic": rows[at]["topic"]} for at in (4, 6)]
    assert counts(take(folder, write(folder / "back.csv", back))) == {"answers": 2, "corrected": 2}
    assert read(path) == rows


def test_a_labels_csv_without_keys_is_matched_by_its_texts(tmp_path: Path) -> None:
    labelled_run(tmp_path, output={"columns": ["text", "n"]}, input={"key": "id"})
    path = tmp_path / "run" / "labels.csv"
    rows = read(path)
    rows[2]["topic"] = new = other(rows[2])
    rows[3]["n"] = f"{rows[3]['n']}.0"
    facts = take(tmp_path, write(tmp_path / "edited.csv", list(reversed(rows))))
    assert counts(facts) == {"answers": 1, "corrected": 1, "unchanged": 80}
    assert read(path)[2]["topic"] == new
    rows[5]["text"] = "something else"
    with pytest.raises(LabelpipeError, match="match no record of the run: line 7"):
        take(tmp_path, write(tmp_path / "edited.csv", rows))


def test_rows_that_several_records_have_are_matched_by_their_order_or_refused(tmp_path: Path) -> None:
    labelled_run(tmp_path, output={"columns": ["text"]}, task={"prompt": "{{ n }}"})
    path = tmp_path / "run" / "labels.csv"
    rows = [{**row, "text": "the same"} for row in read(path)]
    with (tmp_path / "in.csv").open("w") as file:
        file.write("id,n,text\n" + "".join(f"T{n:03},{n},the same\n" for n in range(90)))
    again(tmp_path, output={"columns": ["text"]}, task={"prompt": "{{ n }}"})
    rows[2]["topic"] = new = other(rows[2])
    assert counts(take(tmp_path, write(tmp_path / "edited.csv", rows)))["corrected"] == 1
    assert read(path)[2]["topic"] == new
    rows[7]["topic"], rows[7]["confidence"] = "login", "0.123"
    with pytest.raises(LabelpipeError, match="match several records"):
        take(tmp_path, write(tmp_path / "edited.csv", rows[1:]))


def test_a_person_labels_a_record_that_the_model_did_not(folder: Path) -> None:
    rows = draw(folder, where="status == 'rejected'")
    rows[0] |= {"topic": "login", "urgency": "2"}
    with pytest.raises(LabelpipeError, match="it needs a value for confidence too"):
        take(folder, write(folder / "back.csv", rows))
    rows[0]["confidence"] = "1"
    assert counts(take(folder, write(folder / "back.csv", rows))) == {"answers": 1, "corrected": 1, "unanswered": 8}
    assert labels(folder)[rows[0]["id"]]["topic"] == "login"
    failed = {row["key"] for row in read(folder / "run" / "failed.csv")}
    assert failed == {row["id"] for row in rows[1:]}
    found = status(folder / "run")
    assert (found["labelled"], found["by_people"], sum(found["labels"]["topic"].values())) == (81, 1, 82)
    assert "labeled by people: 1 of the records without a label of the model" in repr(found)
    assert verify(folder / "run").ok


def test_answers_wait_for_a_run_that_is_at_work(folder: Path) -> None:
    rows = draw(folder, sample=3)
    rows[0]["topic"] = new = other(rows[0])
    with RunDir(folder / "run").open_for_writing():
        facts = take(folder, write(folder / "back.csv", rows))
        assert facts["files"] == "at_work"
        assert labels(folder)[rows[0]["id"]]["topic"] != new
    assert "not all in the rows yet" in str(verify(folder / "run"))
    again(folder)
    assert labels(folder)[rows[0]["id"]]["topic"] == new
    assert verify(folder / "run").ok


def test_two_people_answer_one_draw_and_the_last_word_counts(folder: Path) -> None:
    rows = draw(folder, sample=3)
    first, second = (topic for topic in TOPICS if topic != rows[0]["topic"])
    for by, topic in (("ann", first), ("bob", second)):
        rows[0]["topic"] = topic
        take(folder, write(folder / f"{by}.csv", rows), by=by)
    assert labels(folder)[rows[0]["id"]]["topic"] == second
    with open_reviews(folder / "run") as reviews:
        assert [answer.by for answer in reviews.active_answers() if answer.key == rows[0]["id"]] == ["ann", "bob"]


def test_a_file_answers_the_smallest_draw_that_holds_it(folder: Path) -> None:
    """The same seed draws the same records, so a larger draw holds the smaller one."""
    rows = draw(folder, sample=4)
    more = draw(folder, "more.csv", sample=4, per_class=3)
    draw(folder, "again.csv", sample=4, blind=True)
    assert take(folder, write(folder / "a.csv", more))["draw"] == 2
    assert take(folder, write(folder / "b.csv", rows))["draw"] == 3
    assert take(folder, write(folder / "c.csv", rows), draw=1)["draw"] == 1
    with pytest.raises(LabelpipeError, match="are not in draw 1"):
        take(folder, write(folder / "d.csv", more), draw=1)
    with pytest.raises(LabelpipeError, match="no such draw"):
        take(folder, write(folder / "e.csv", rows), draw=9)


def test_an_edited_labels_csv_answers_no_draw_of_all_records(folder: Path) -> None:
    """Blind or not: what agrees in it was never looked at, and what differs is no random part of the draw."""
    draw(folder, where="status == 'labelled'", blind=True)
    path = folder / "run" / "labels.csv"
    rows = read(path)
    rows[0]["topic"] = other(rows[0])
    facts = take(folder, write(folder / "edited.csv", rows))
    assert (counts(facts), facts["draw"], facts["blind"]) == (
        {"answers": 1, "corrected": 1, "unchanged": 80}, None, False
    )  # fmt: skip
    facts = take(folder, write(folder / "filled.csv", [{"id": row["id"], "topic": row["topic"]} for row in rows]))
    assert (facts["answers"], facts["draw"], facts["blind"]) == (81, 1, True)


@pytest.mark.parametrize("blind", [False, True])
def test_what_differs_in_a_file_that_is_no_draw_is_no_answer_to_it(folder: Path, blind: bool) -> None:
    """Gold whose records lie in a draw, such as what was kept of its mistakes, is no random part of it."""
    shown = labels(folder)
    rows = [shown[row["id"]] for row in draw(folder, where="status == 'labelled'", sample=5, blind=blind)]
    rows[0]["topic"] = other(rows[0])
    gold = [{"id": row["id"], "topic": row["topic"], "note": "mine"} for row in rows]
    facts = take(folder, write(folder / "gold.csv", gold[:4]))
    assert (counts(facts), facts["draw"]) == ({"answers": 4, "corrected": 1, "unclear": 3}, None)
    assert facts["lies_in"] == (1 if blind else None)
    assert ("--draw 1" in "\n".join(answers_lines(facts))) == blind
    facts = take(folder, write(folder / "some.csv", gold[:4]), draw=1)
    assert (facts["draw"], facts["blind"], facts["confirmed"]) == (1, blind, 4)
    # Another tool leaves columns out, but not records: those that it was given.
    rest = take(folder, write(folder / "rest.csv", [{"id": row["id"], "topic": row["topic"]} for row in gold[4:]]))
    assert (counts(rest), rest["draw"]) == ({"answers": 1, "confirmed": 1}, 1)
    again = take(folder, write(folder / "all.csv", [{"id": row["id"], "topic": row["topic"]} for row in gold]), "bob")
    assert (counts(again), again["draw"]) == ({"answers": 5, "confirmed": 5}, 1)
    copied = take(folder, write(folder / "copy.csv", rows), "eve")  # rows of labels.csv, and the columns of it
    assert copied["draw"] == (1 if blind else None)


def test_lines_of_json_may_leave_out_what_is_null(folder: Path) -> None:
    do(draw_to_file(folder / "run", DrawOptions(sample=4, blind=True), folder / "draw.jsonl"))
    rows = [json.loads(line) for line in (folder / "draw.jsonl").read_text().splitlines()]
    rows[1] |= {"topic": TOPICS[0], "note": "why?"}
    rows[2] |= {"unclear": True}
    told = [{name: value for name, value in row.items() if value is not None} for row in rows[:3]]
    (folder / "back.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in told))
    facts = take(folder, folder / "back.jsonl")
    assert (facts["draw"], facts["blind"], facts["answers"], facts["unanswered"]) == (1, True, 2, 1)


def test_a_column_of_the_input_is_not_a_note(tmp_path: Path) -> None:
    """Each record has a note of its own, which labels.csv carries along."""
    write_input(tmp_path)
    path = tmp_path / "in.csv"
    path.write_text(path.read_text().replace("id,n,text", "id,note,text"))

    async def provider(request: Request) -> Response:
        fields = {**request.record.fields, "n": request.record.fields["note"]}
        return await answer(replace(request, record=replace(request.record, fields=fields)))

    run(settings(tmp_path), RunOptions(provider=provider, quiet=True))
    rows = read(tmp_path / "run" / "labels.csv")
    rows[0]["topic"] = other(rows[0])
    draw(tmp_path, where="status == 'labelled'")
    facts = take(tmp_path, write(tmp_path / "edited.csv", rows))
    assert (counts(facts), facts["draw"]) == ({"answers": 1, "corrected": 1, "unchanged": 80}, None)
    filled = read(tmp_path / "draw.csv")
    assert filled[0]["input_note"], "what was carried has another name in a draw"
    filled[3]["note"] = "why?"
    facts = take(tmp_path, write(tmp_path / "back.csv", filled[1:4]))
    assert (counts(facts), facts["draw"]) == ({"answers": 3, "confirmed": 3}, 1)


def test_two_people_who_answer_at_once_are_both_in_the_files(folder: Path) -> None:
    """Who comes while the other one writes the files leaves them to that one, who looks again."""
    keys = sorted(labels(folder))
    files = {
        by: write(folder / f"{by}.csv", [{"id": key, "topic": other(labels(folder)[key])} for key in some])
        for by, some in {"ann": keys[:20], "bob": keys[20:40], "eve": keys[40:60]}.items()
    }
    with ThreadPoolExecutor() as pool:
        facts = list(pool.map(lambda by: take(folder, files[by], by), files))
    assert [one["corrected"] for one in facts] == [20, 20, 20]
    assert "60 corrections, all in the rows." in str(verify(folder / "run"))
