"""Which examples are nearest: found by what is said, in any script, the same in every process."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.task.nearest import MAX_CHARS, MAX_PLACES, Nearest, fold

TEXTS = [
    "The battery lasts two full days.",
    "Crashes whenever I tap save.",
    "Soup was cold and the waiter rude.",
    "배송도 빠르고 포장도 꼼꼼해요",
    "글씨도 작고 버튼은 어디 있는지도 모르겠고",
    "실물이 화면보다 훨씬 예뻐요",
    "这个电池可以用两天",
    "スープが冷たくて店員も失礼だった",
]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("two days on one battery!", 0),
        ("it crashed when saving", 1),
        ("a rude waiter brought us cold soup", 2),
        ("빠른 배송, 꼼꼼한 포장", 3),
        ("버튼이 어디 있는지 몰라서 불편하고 글씨가 작아요", 4),
        ("화면으로 본 것보다 예쁜 실물", 5),
        ("电池能用两天吗", 6),
        ("店員が失礼で、スープは冷たい", 7),
    ],
)
@pytest.mark.parametrize("template", ["{}", "You see a review.\n\nText: {}\n\nCall the function about the soup."])
def test_another_wording_of_a_text_finds_it(text: str, nearest: int, template: str) -> None:
    index = Nearest([template.format(one) for one in TEXTS])
    assert index.find(template.format(text), 1) == [nearest]


def test_hangul_is_near_by_its_letters() -> None:
    # No syllable of 예쁜 is in 예뻐요 but the first; the letters ㅖㅃ are.
    assert Nearest(["예술 영화", "정말 예뻐요", "예약 완료"]).find("예쁜", 1) == [1]


def test_two_chinese_characters_are_enough() -> None:
    assert Nearest(["电视坏了", "电池很好"]).find("这块电池不行", 1) == [1]


def test_a_short_text_is_nearer_than_a_long_one_that_has_the_same_word() -> None:
    assert Nearest(["A long evening with soup and wine by the fire", "Soup", "Car"]).find("the soup", 1) == [1]


def test_no_word_is_cut_where_all_texts_begin_alike() -> None:
    assert Nearest(["x 0777", "x 0077"]).find("y 0777", 1) == [0]


@pytest.mark.parametrize(
    "same",
    [
        "Crashes  whenever\nI tap save.",
        "CRASHES WHENEVER I TAP SAVE.",
        " Crashes whenever I tap save.\n",
        "Crashes whenever I tap save.",
    ],
)
def test_a_text_never_finds_itself(same: str) -> None:
    assert 1 not in Nearest(TEXTS).find(same, len(TEXTS))
    assert len(Nearest(TEXTS).find(same, len(TEXTS))) == len(TEXTS) - 1


def test_composed_and_decomposed_hangul_are_the_same() -> None:
    decomposed = unicodedata.normalize("NFD", TEXTS[3])
    assert decomposed != TEXTS[3]
    assert 3 not in Nearest(TEXTS).find(decomposed, len(TEXTS))


def test_of_texts_that_are_the_same_the_first_is_found() -> None:
    assert Nearest(["good soup", "bad car", "Good  soup"]).find("the soup is good", 3) == [0, 1]


def test_equally_near_ones_come_in_their_order() -> None:
    assert Nearest(["abc x", "abc y", "abc z"]).find("nothing", 3) == [0, 1, 2]
    assert Nearest(["red car", "blue car"]).find("", 2) == [0, 1]


@pytest.mark.parametrize("texts", [["one"], ["one", "one"], ["", "a"], ["   "], ["a", "ab", "abc"]])
def test_few_and_short_texts(texts: list[str]) -> None:
    found = Nearest(texts).find("something else", 9)
    assert sorted(found) == sorted({texts.index(text) for text in texts})


def test_no_more_are_found_than_there_are() -> None:
    assert len(Nearest(TEXTS).find("soup", 100)) == len(TEXTS)
    assert Nearest([]).find("soup", 3) == []


def test_a_long_template_does_not_hide_the_text() -> None:
    long = "Read the rules first. " * (MAX_CHARS // 10)
    assert Nearest([long + text for text in TEXTS]).find(long + "cold soup", 1) == [2]


def test_rare_words_still_count_where_not_every_place_is_looked_at() -> None:
    assert MAX_PLACES < 10_000  # the texts share some seventy grams in a thousand places each
    common = "the quick brown fox jumps over the lazy dog and runs away from all of them"
    texts = [f"{common} number{place:04}" for place in range(1_000)] + ["something", "else"]
    assert Nearest(texts).find(f"{common} please, number0777", 1) == [777]


@given(st.lists(st.text(max_size=30), max_size=8), st.text(max_size=30), st.integers(1, 9))
def test_what_is_found_are_the_best_without_the_text_itself(texts: list[str], text: str, count: int) -> None:
    index = Nearest(texts)
    found = index.find(text, count)
    firsts = {fold(one): place for place, one in reversed(list(enumerate(texts)))}
    firsts.pop(fold(text), None)
    assert len(found) == len(set(found)) == min(count, len(firsts))
    assert set(found) <= set(firsts.values())
    assert found == index.find(text, len(texts) + 1)[:count]


def test_every_process_finds_the_same() -> None:
    # Text hashes differ from process to process; no order may come of them.
    code = (
        "from pipeline.task.nearest import Nearest; from pipeline import codec; import sys\n"
        "texts = codec.loads(sys.stdin.read())\n"
        "index = Nearest(texts)\n"
        "print([index.find(text + ' and then some', 5) for text in texts])"
    )
    texts = codec.dumps([f"{one} {other}" for one in TEXTS for other in TEXTS])

    def run(seed: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-c", code], input=texts, capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout

    assert run("1") == run("2")


@pytest.mark.parametrize("words", [8, 40, 200])
def test_no_more_than_so_many_places_are_looked_at(words: int) -> None:
    vocabulary = [
        f"{one}{other}" for one in "가나다라마바사아자차" for other in ("요리는", "ing the", "한 배송", "버튼")
    ]
    texts = [
        " ".join(vocabulary[(place * 7 + word * (place + 3)) % len(vocabulary)] for word in range(words)) + f" {place}"
        for place in range(1_000)
    ]
    index = Nearest(texts)
    read: list[int] = []

    class Places(list[int]):
        """The texts that have a gram, which count how many of them are looked at."""

        def __iter__(self) -> Iterator[int]:
            read.append(len(self))
            return super().__iter__()

    index._grams = {gram: (weight, Places(places)) for gram, (weight, places) in index._grams.items()}
    for text in texts[:20]:
        read.clear()
        assert len(index.find(f"{text} more", 5)) == 5
        assert 0 < sum(read) <= MAX_PLACES
