"""Draws the records that a person checks, and computes the probability of each to be drawn.

Whether a record is drawn depends on a hash of the seed and its key. So the same seed draws the same records again, a
larger draw contains the smaller one, and records that are added later displace as few as possible. Each way of drawing
has its own hash, so that two of them are independent: the probability of being in any of them is one minus the product
of the probabilities of being in none (Horvitz and Thompson 1952 weight by its inverse).
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class DrawPart:
    """The result of one way of drawing.

    `keys` are the drawn records; `probability` returns, for any record of the population, that of being drawn by it.
    `spec` describes the draw as plain values, with the sizes that determine the probabilities. `stratum_of` returns the
    group that a record was drawn from.
    """

    keys: frozenset[str]
    probability: Callable[[str], float]
    spec: Mapping[str, Any]
    stratum_of: Callable[[str], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class DrawnRecord:
    """A drawn record, with its probability of being drawn by any part, and the group that it is from."""

    key: str
    probability: float
    stratum: str


def uniform(seed: int, way: str, key: str) -> float:
    """Return a number in [0, 1) that is uniform over all seeds, and the same for equal arguments."""
    text = f"{seed}\0{way}\0{key}".encode("utf-8", "surrogatepass")
    # 53 bits: every such float is exact, and none is rounded up to 1.
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53


def random_part(keys: Collection[str], n: int, seed: int) -> DrawPart:
    """Draw a simple random sample of `n` records, or all of them if there are no more."""
    chosen, size = _lowest_hashes(keys, n, seed, "sample"), len(keys)
    share = min(1.0, n / size) if size else 0.0
    return DrawPart(frozenset(chosen), lambda _: share, {"kind": "sample", "n": n, "of": size})


def stratified_part(class_of: Mapping[str, str], n: int, seed: int) -> DrawPart:
    """Draw a simple random sample of `n` records of each class, or all of a class that has no more."""
    groups: dict[str, list[str]] = {}
    for key, name in class_of.items():
        groups.setdefault(name, []).append(key)
    sizes = {name: len(group) for name, group in sorted(groups.items())}
    chosen = {key for group in groups.values() for key in _lowest_hashes(group, n, seed, "per_class")}
    return DrawPart(
        frozenset(chosen),
        lambda key: min(1.0, n / sizes[class_of[key]]) if key in class_of else 0.0,
        {"kind": "per_class", "n": n, "strata": sizes},
        lambda key: class_of.get(key, ""),
    )


def lowest_scores(score_of: Mapping[str, float], n: int, seed: int) -> DrawPart:
    """Draw the `n` records with the lowest scores; ties for the last place are broken at random."""
    scores = nsmallest(n, score_of.values())
    if not scores:
        return DrawPart(frozenset(), lambda _: 0.0, {"kind": "uncertain", "n": n, "of": len(score_of)})
    last = scores[-1]
    below = {key for key, score in score_of.items() if score < last}
    ties = [key for key, score in score_of.items() if score == last]
    share = (len(scores) - len(below)) / len(ties)
    chosen = below | set(_lowest_hashes(ties, len(scores) - len(below), seed, "uncertain"))

    def probability(key: str) -> float:
        score = score_of.get(key)
        if score is None or score > last:
            return 0.0
        return 1.0 if score < last else share

    spec = {"kind": "uncertain", "n": n, "of": len(score_of), "last": last, "below": len(below), "ties": len(ties)}
    return DrawPart(frozenset(chosen), probability, spec)


def certain_part(keys: Iterable[str], **spec: Any) -> DrawPart:
    """Return records that are certain to be drawn: their probability is 1."""
    chosen = frozenset(keys)
    return DrawPart(chosen, lambda key: float(key in chosen), {**spec, "n": len(chosen)})


def draw_records(parts: Sequence[DrawPart], seed: int) -> list[DrawnRecord]:
    """Return the records that any of the parts drew, in random order."""
    keys = sorted(frozenset[str]().union(*(part.keys for part in parts)), key=lambda key: uniform(seed, "order", key))
    return [
        DrawnRecord(
            key, _inclusion_probability(parts, key), next(filter(None, (part.stratum_of(key) for part in parts)), "")
        )
        for key in keys
    ]


def _lowest_hashes(keys: Collection[str], n: int, seed: int, way: str) -> list[str]:
    """Return the `n` keys with the lowest hashes; equal hashes are ordered by key."""
    return [key for _, key in nsmallest(n, ((uniform(seed, way, key), key) for key in keys))]


def _inclusion_probability(parts: Sequence[DrawPart], key: str) -> float:
    chances = [chance for part in parts if (chance := part.probability(key))]
    return chances[0] if len(chances) == 1 else 1.0 - prod(1.0 - chance for chance in chances)
