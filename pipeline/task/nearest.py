"""Finds the texts that are most similar to another one: TF-IDF over character 3-grams, in memory, without calls."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from heapq import nlargest
from operator import itemgetter

SIZE = 3  #: characters of a gram
MAX_CHARS = 4_000  #: of a folded text that are compared
#: The most places to visit for one text, rarest grams first. Keeps long texts under a millisecond.
MAX_PLACES = 8_000
#: One such character is worth two or three letters.
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")


class Nearest:
    """Finds the nearest of `texts`. The same texts and the same query give the same result on every machine.

    Case, width, composition, and white space do not matter. Hangul is compared by its letters (jamo), so that
    좋아요 and 좋았어요 are as near as "like" and "liked". What all texts begin or end with, as in a prompt
    template, is ignored. Of identical texts, only the first is ever found.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._places: dict[str, int] = {}
        for place, text in enumerate(texts):
            self._places.setdefault(fold(text), place)
        self._head, self._tail = _frame(self._places)
        self._grams, self._scales = _index([_grams(self._bare(folded)) for folded in self._places])

    def find(self, text: str, count: int) -> list[int]:
        """Return the places of the `count` nearest texts, the nearest first, without any that is the same as `text`.

        Of equally near texts, or if nothing is shared, the earlier one comes first.
        """
        folded = fold(text)
        scores = self._scores(folded)
        same, places = self._places.get(folded), list(self._places.values())
        best = nlargest(count + (same is not None), range(len(places)), key=scores.__getitem__)
        return [places[number] for number in best if places[number] != same][:count]

    def _scores(self, folded: str) -> list[float]:
        """Return the cosine with each text, except for a factor that is the same for all."""
        shared = [self._grams[gram] for gram in _grams(self._bare(folded)) if gram in self._grams]
        shared.sort(key=itemgetter(0), reverse=True)
        scores, left = [0.0] * len(self._scales), MAX_PLACES
        for weight, numbers in shared:
            left -= len(numbers)
            if left < 0:
                break
            for number in numbers:
                scores[number] += weight
        return [score * scale for score, scale in zip(scores, self._scales, strict=True)]

    def _bare(self, folded: str) -> str:
        return folded.removeprefix(self._head).removesuffix(self._tail)[:MAX_CHARS]


def fold(text: str) -> str:
    """Return the text as it is compared. Texts that fold alike are the same."""
    return " ".join(unicodedata.normalize("NFKD", text.casefold()).split())


def _frame(folded: Iterable[str]) -> tuple[str, str]:
    """Return the words that all texts begin with, and those that all end with."""
    texts = list(folded)
    if len(texts) < 2:
        return "", ""
    head = _common_start(texts)
    return head, _common_start([text[len(head) :][::-1] for text in texts])[::-1]


def _common_start(texts: Sequence[str]) -> str:
    # What the first and the last text in sorted order share, all texts between them share.
    first, last = min(texts), max(texts)
    shared = next((place for place, character in enumerate(first) if character != last[place]), len(first))
    return first[: first.rfind(" ", 0, shared) + 1]  # whole words only


def _grams(bare: str) -> list[str]:
    # Each gram once, in the order of the text, because sums of floats must be the same in every process.
    text = " " + _WIDE.sub(r"\g<0>\g<0>", bare) + " "
    return list(dict.fromkeys([text[start : start + SIZE] for start in range(len(text) - SIZE + 1)]))


def _index(texts: Sequence[Sequence[str]]) -> tuple[dict[str, tuple[float, tuple[int, ...]]], list[float]]:
    """Return each gram's weight and the texts that contain it, and the scale of each text's score."""
    having: dict[str, list[int]] = {}
    for number, grams in enumerate(texts):
        for gram in grams:
            having.setdefault(gram, []).append(number)
    # The square of log(texts / texts that contain it), as both texts of a pair contribute it.
    weights = {gram: math.log(len(texts) / len(numbers)) ** 2 for gram, numbers in having.items()}
    scales = [1 / (math.sqrt(sum(weights[gram] for gram in grams)) or 1) for grams in texts]
    return {gram: (weights[gram], tuple(numbers)) for gram, numbers in having.items() if weights[gram]}, scales
