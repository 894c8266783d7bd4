"""reviews.db: draws and answers come back as they were, nothing is ever changed, and the last word counts."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import TEXTS, VALUES

from pipeline.errors import SetupError, StoreError
from pipeline.store import Answer, Draw, DrawItem, Place, Reviews, label_digest, open_reviews, read_reviews, retraction

ABOUT = label_digest({"topic": "bill"})
RIGHT = Answer("a", "ann", ABOUT, old={"topic": "bill", "tone": "calm"}, record=1)


@pytest.fixture
def reviews(tmp_path: Path) -> Iterator[Reviews]:
    with open_reviews(tmp_path) as opened:
        yield opened


def test_a_draw_comes_back_with_its_answers(reviews: Reviews) -> None:
    draw = Draw(7, {"sample": 2}, "review", 10, "d", blind=True)
    items = [DrawItem("b", 0.25, "rare"), DrawItem("a\udc80", 1.0)]
    kept = reviews.add_draw(draw, items)
    other = reviews.add_draw(replace(draw, purpose="certify"), items[:1])
    reviews.add_answers([replace(RIGHT, key="b", draw=other.id), replace(RIGHT, key="a\udc80", draw=kept.id)])
    assert reviews.draws() == [kept, other]
    assert reviews.draws("certify") == [other]
    found = reviews.items_of(kept.id)
    assert [(item.key, item.probability, item.stratum, item.position) for item in found] == [
        ("b", 0.25, "rare", 0),
        ("a\udc80", 1.0, "", 1),
    ]
    assert [item.answer and item.answer.key for item in found] == [None, "a\udc80"]


@pytest.mark.parametrize("items", [[DrawItem("a", 0.0)], [DrawItem("a", 1.5)], [DrawItem("a", 1), DrawItem("a", 1)]])
def test_a_draw_without_honest_probabilities_is_refused(reviews: Reviews, items: list[DrawItem]) -> None:
    with pytest.raises(ValueError, match=r"drawn with probability|twice"):
        reviews.add_draw(Draw(1, {}, "review", 1, ""), items)
    assert reviews.draws() == []


def test_the_last_word_on_each_field_counts_and_an_answer_can_be_taken_back(reviews: Reviews) -> None:
    assert reviews.version() == 0
    topic = reviews.add_answers([replace(RIGHT, new={"topic": "login"})])[0]
    tone = reviews.add_answers([replace(RIGHT, by="bob", new={"tone": "angry"})])[0]
    correction = reviews.corrections()["a"]
    assert (correction.fields, correction.by) == ({"topic": "login", "tone": "angry"}, "bob")
    assert correction.answers == (topic.id, tone.id)
    before = reviews.version()
    reviews.add_answers([replace(RIGHT, new={}, unclear=True, note="which one?")])  # says nothing about a value
    assert (reviews.version(), reviews.corrections()["a"]) == (before, correction)
    reviews.add_answers([retraction(tone, "ann")])
    assert reviews.version() > before
    assert reviews.corrections()["a"].fields == {"topic": "login"}
    assert reviews.corrections(upto=before)["a"] == correction
    assert len(reviews.answers()) == 4
    assert [answer.takes_back for answer in reviews.answers(since=3)] == [tone.id]
    reviews.add_answers([RIGHT])  # as it is: all of the label, as it was shown
    assert reviews.corrections()["a"].fields == RIGHT.old


def test_a_correction_follows_its_record_and_ends_with_its_content(reviews: Reviews) -> None:
    first = reviews.add_answers([replace(RIGHT, new={"topic": "login"})])[0]
    before = reviews.version()
    reviews.add_places([Place(first.id, "b", 1, b"r")])
    assert reviews.version() > before
    assert (list(reviews.corrections()), list(reviews.corrections(upto=before))) == (["b"], ["a"])
    reviews.add_answers([replace(RIGHT, key="b", record=2, new={"tone": "angry"})])  # the text has changed
    assert reviews.corrections()["b"].fields == {"tone": "angry"}


ANSWERS = st.builds(
    Answer,
    key=TEXTS,
    by=TEXTS,
    about=st.just(ABOUT),
    old=st.none() | st.dictionaries(TEXTS, VALUES, max_size=3),
    new=st.none() | st.dictionaries(TEXTS, VALUES, max_size=3),
    record=st.none() | st.integers(-(2**63), 2**63 - 1),
    request=st.none() | st.binary(max_size=16),
    blind=st.booleans(),
    unclear=st.booleans(),
    note=TEXTS,
    draw=st.none() | st.integers(1, 9),
    at=st.floats(1, 1e10),
)


@given(st.lists(ANSWERS, max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_answer_comes_back_equal(tmp_path_factory: pytest.TempPathFactory, given_answers: list[Answer]) -> None:
    folder = tmp_path_factory.mktemp("reviews")
    with open_reviews(folder) as reviews:
        kept = reviews.add_answers(given_answers)
    again = read_reviews(folder)
    assert again is not None
    with again:
        assert again.answers() == kept
    assert [replace(answer, id=0) for answer in kept] == given_answers


def test_two_reviewers_in_threads_lose_nothing(tmp_path: Path) -> None:
    def review(by: str) -> None:
        with open_reviews(tmp_path) as mine:
            for number in range(20):
                mine.add_answers([replace(RIGHT, key=f"k{number}", by=by, new={"topic": by})])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(review, ["ann", "bob", "eve", "kim"]))
    with open_reviews(tmp_path) as reviews:
        answers = reviews.answers()
    assert [answer.id for answer in answers] == list(range(1, 81))
    assert {(answer.key, answer.by) for answer in answers} == {
        (f"k{number}", by) for number in range(20) for by in ("ann", "bob", "eve", "kim")
    }


def test_another_process_ends_while_this_one_reviews(tmp_path: Path) -> None:
    """A page of a review has the file open, and opens it a second time to write the run's files. A run that ends then
    must not take itself for the last one who uses the file: it would delete the journal in which answers are.
    """
    with open_reviews(tmp_path) as reviews:
        reviews.add_answers([Answer("a", "ann", "", new={"topic": "x"})])
        open_reviews(tmp_path).close()
        code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM answers'); c.close()"
        subprocess.run([sys.executable, "-c", code, str(reviews.path)], check=True)
        reviews.add_answers([Answer("b", "ann", "", new={"topic": "y"})])
        with open_reviews(tmp_path) as other:
            assert [one.key for one in other.answers()] == ["a", "b"]


def test_answers_are_kept_all_or_none(reviews: Reviews) -> None:
    with pytest.raises(StoreError, match="NOT NULL"):
        reviews.add_answers([RIGHT, replace(RIGHT, about=None)])  # type: ignore[arg-type]
    assert reviews.answers() == []


def test_the_file_is_its_owners_and_rows_are_only_added(tmp_path: Path, reviews: Reviews) -> None:
    reviews.add_answers([RIGHT])
    path = tmp_path / "reviews.db"
    for file in tmp_path.iterdir():
        assert os.name == "nt" or stat.S_IMODE(file.stat().st_mode) == 0o600, file
    with closing(sqlite3.connect(path)) as other:
        for statement in ("UPDATE answers SET note = 'x'", "DELETE FROM answers"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                other.execute(statement)


def test_another_file_is_refused_and_none_is_no_error(tmp_path: Path) -> None:
    assert read_reviews(tmp_path) is None
    path = tmp_path / "reviews.db"
    path.touch()
    assert read_reviews(tmp_path) is None
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(SetupError, match="does not hold the reviews"):
        open_reviews(tmp_path)
    path.unlink()
    path.write_text("no database at all, and long enough to be looked at" * 20)
    with pytest.raises(SetupError, match="cannot be opened"):
        read_reviews(tmp_path)
    path.unlink()
    with open_reviews(tmp_path) as reviews:
        reviews.add_answers([RIGHT])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(SetupError, match="newer labelpipe"):
        open_reviews(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(SetupError, match="link"):
        open_reviews(tmp_path)


def test_equal_labels_have_one_digest() -> None:
    assert label_digest({"a": 1, "b": None}) == label_digest({"b": None, "a": 1})
    assert label_digest({"a": 1}) != label_digest({"a": "1"})
    assert label_digest({"a": 1}) != label_digest({"a": 1}, rows=[{}])
