"""The sample data is what its README says: two files, the same records, awkward texts on purpose."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
FIELDS = ["id", "text", "lang", "gold", "source"]
GOLD = ["positive", "negative", "neutral"]
LANGUAGES = ["en", "ko", "mixed"]
SOURCES = {"shop", "app", "cafe", "delivery", "book", "hotel", "film"}
FIRST_SEVEN = [
    ("I love this product!", "positive"),
    ("This is the worst thing I have ever bought.", "negative"),
    ("It's okay, not great but not bad.", "neutral"),
    ("Not worth the money.", "negative"),
    ("Best purchase ever!", "positive"),
    ("이 제품을 사랑해요!", "positive"),
    ("돈이 아깝다.", "negative"),
]

HANGUL = re.compile(r"[가-힣]")
LATIN_WORD = re.compile(r"[a-z]{3}", re.IGNORECASE)
EMOJI = re.compile("[\U0001f1e6-\U0001faff\u2600-\u27bf]")
PRICE = re.compile(r"[$£€]\d|\d원|\d만 원")

#: the README's name of a trait -> whether a text has it, and how many texts must at least
TRAITS: dict[str, tuple[Callable[[str], object], int]] = {
    "comma": (lambda text: "," in text, 50),
    "double quote": (lambda text: '"' in text, 10),
    "single quote": (lambda text: "'" in text, 20),
    "newline": (lambda text: "\n" in text, 10),
    "tab": (lambda text: "\t" in text, 3),
    "semicolon": (lambda text: ";" in text, 10),
    "percent sign": (lambda text: "%" in text, 5),
    "price": (PRICE.search, 10),
    "emoji": (EMOJI.search, 15),
    "formula sign first (`=` `+` `-` `@`)": (lambda text: text[0] in "=+-@", 4),
    "template braces": (re.compile(r"\{\{ \w+ \}\}").search, 1),
    "HTML tag": (re.compile(r"<(\w+)>.*</\1>").search, 1),
    "over 500 characters": (lambda text: len(text) > 500, 1),
}

Row = dict[str, str]


def read_csv(data: bytes) -> list[Row]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True)
    return list(reader)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    lines = (DATA / "reviews.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line ends in a newline"
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def texts(rows: list[Row]) -> list[str]:
    return [row["text"] for row in rows]


@pytest.fixture(scope="module")
def tables() -> dict[str, list[str]]:
    """The README's table rows: the first cell -> the other cells."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


def test_both_files_hold_the_same_records_in_the_same_order(rows: list[Row]) -> None:
    assert read_csv((DATA / "reviews.csv").read_bytes()) == rows


def test_every_record_has_the_fields_as_text_and_nothing_else(rows: list[Row]) -> None:
    assert [row for row in rows if list(row) != FIELDS] == []
    assert [row for row in rows if not all(isinstance(value, str) and value for value in row.values())] == []


def test_files_are_utf8_without_bom_or_escapes() -> None:
    for name in ("reviews.jsonl", "reviews.csv"):
        data = (DATA / name).read_bytes()
        assert not data.startswith(b"\xef\xbb\xbf"), name
        assert b"\r" not in data, name
        assert "이 제품을 사랑해요!" in data.decode("utf-8"), name
        assert b"\\u" not in data, name


def test_csv_quotes_what_must_be_quoted_and_nothing_else(rows: list[Row]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    assert (DATA / "reviews.csv").read_bytes() == buffer.getvalue().encode()


def test_ids_count_up_from_r0001(rows: list[Row]) -> None:
    assert [row["id"] for row in rows] == [f"r{number:04d}" for number in range(1, len(rows) + 1)]


def test_the_seven_given_ones_come_first(rows: list[Row]) -> None:
    assert [(row["text"], row["gold"]) for row in rows[:7]] == FIRST_SEVEN


def test_values_are_of_the_named_sets(rows: list[Row]) -> None:
    assert {row["gold"] for row in rows} == set(GOLD)
    assert {row["lang"] for row in rows} == set(LANGUAGES)
    assert {row["source"] for row in rows} == SOURCES


def test_no_two_texts_are_alike(texts: list[str]) -> None:
    """Not even but for case, spaces and punctuation; and no three open with the same three words, as templates do."""
    letters = [re.sub(r"\W", "", text.casefold()) for text in texts]
    assert len(set(letters)) == len(texts)
    openings = Counter(" ".join(text.casefold().split()[:3]) for text in texts)
    assert [opening for opening, count in openings.items() if count > 2] == []


def test_texts_are_composed_and_have_no_space_at_their_ends(texts: list[str]) -> None:
    """Some systems decompose Hangul when they write it; such a text looks the same and is another key."""
    assert [text for text in texts if text != unicodedata.normalize("NFC", text).strip()] == []


def test_the_language_is_what_the_text_is_written_in(rows: list[Row]) -> None:
    def script(text: str) -> str:
        if not HANGUL.search(text):
            return "en"
        return "mixed" if LATIN_WORD.search(text) else "ko"

    assert [row["id"] for row in rows if row["lang"] != script(row["text"])] == []


def test_labels_and_languages_are_balanced(rows: list[Row]) -> None:
    total = len(rows)
    assert 280 <= total <= 320
    gold = Counter(row["gold"] for row in rows)
    assert all(0.25 <= gold[label] / total <= 0.40 for label in GOLD)
    language = Counter(row["lang"] for row in rows)
    assert 0.55 <= language["en"] / total <= 0.65
    assert 0.35 <= (language["ko"] + language["mixed"]) / total <= 0.45
    assert language["mixed"] >= 5


def test_the_first_fifty_are_a_fair_sample(rows: list[Row]) -> None:
    """`--limit 50` must not show one label or one language only."""
    head = rows[:50]
    assert min(Counter(row["gold"] for row in head)[label] for label in GOLD) >= 8
    assert min(Counter(row["lang"] for row in head)[language] for language in ("en", "ko")) >= 15


def test_lengths_vary_from_a_few_words_to_one_very_long(texts: list[str]) -> None:
    lengths = sorted(len(text) for text in texts)
    assert lengths[0] < 15
    assert sum(100 <= length <= 300 for length in lengths) >= 15
    assert 550 <= lengths[-1] <= 700


@pytest.mark.parametrize("trait", TRAITS)
def test_awkward_texts_are_there_and_counted(trait: str, texts: list[str], tables: dict[str, list[str]]) -> None:
    has_it, least = TRAITS[trait]
    count = sum(bool(has_it(text)) for text in texts)
    assert count >= least
    assert tables[trait] == [str(count)]


def test_readme_counts_labels_and_languages(rows: list[Row], tables: dict[str, list[str]]) -> None:
    counts = Counter((row["gold"], row["lang"]) for row in rows)
    for label in GOLD:
        cells = [counts[label, language] for language in LANGUAGES]
        assert tables[label] == [str(cell) for cell in [*cells, sum(cells)]]
    columns = [sum(counts[label, language] for label in GOLD) for language in LANGUAGES]
    assert tables["all"] == [str(cell) for cell in [*columns, len(rows)]]


def test_readme_counts_sources_and_the_whole(rows: list[Row], tables: dict[str, list[str]]) -> None:
    sources = Counter(row["source"] for row in rows)
    assert {source: tables[source] for source in sources} == {key: [str(count)] for key, count in sources.items()}
    text = (DATA / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows)} short reviews" in text
    assert f"`r0001` to `r{len(rows):04d}`" in text


def test_readme_names_every_field(tables: dict[str, list[str]]) -> None:
    assert [field for field in FIELDS if f"`{field}`" not in tables] == []
