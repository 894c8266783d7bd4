"""What each mechanism of `pipeline.limits` is worth: simulated runs with one switched off, beside all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

from benchmarks.bench import Bench
from benchmarks.mechanisms import MECHANISMS, noted, without
from benchmarks.scenes import SCENES
from benchmarks.simulation import Score, play
from benchmarks.tables import Row, Section

#: Seeds of the quick and of the full form.
SEEDS, SEEDS_FULL = (1,), (1, 2, 3)
#: What a difference must be to be printed: points of the share used, points of the share refused.
USED_POINTS, REFUSED_POINTS = 1.0, 0.5
#: So many kinds of server are printed for a mechanism; the file of figures has them all.
SHOWN = 4


def ablation(bench: Bench, full: bool) -> Section:
    """Every kind of server with all mechanisms, and then without each one that it makes use of."""
    seeds = SEEDS_FULL if full else SEEDS
    with ProcessPoolExecutor((os.cpu_count() or 1) + 2) as pool:
        whole = dict(zip(SCENES, pool.map(_whole, SCENES, [seeds] * len(SCENES)), strict=True))
        pairs = [(one, kind) for one in MECHANISMS for kind, (_, used) in whole.items() if one in used]
        scores = pool.map(_without, *zip(*pairs, strict=True), [seeds] * len(pairs), chunksize=4)
        found = dict(zip(pairs, scores, strict=True))
    rows = [Row(kind, _cell(score)) for kind, (score, _) in whole.items()]
    for one in MECHANISMS:
        rows += _rows_of(one, {kind: (whole[kind][0], found[one, kind]) for kind in SCENES if (one, kind) in found})
    figures = {"all": {kind: _plain(score) for kind, (score, _) in whole.items()}}
    figures |= {one: {kind: _plain(found[one, kind]) for kind in SCENES if (one, kind) in found} for one in MECHANISMS}
    return Section(
        "ablation: % of what could be had · % of calls refused, and how they change without a mechanism", rows, figures
    )


def _whole(kind: str, seeds: tuple[int, ...]) -> tuple[Score, set[str]]:
    with noted() as used:
        return play(SCENES[kind], seeds), used


def _without(mechanism: str, kind: str, seeds: tuple[int, ...]) -> Score:
    with without(mechanism):
        return play(SCENES[kind], seeds)


def _rows_of(mechanism: str, scores: Mapping[str, tuple[Score, Score]]) -> list[Row]:
    """A line for each of the kinds of server on which the absence makes most of a difference."""
    apart = {kind: part for kind, part in scores.items() if _is_apart(*part)}
    worst = sorted(apart, key=lambda kind: -abs(_cost(*apart[kind])))
    name = f"without {mechanism}"
    rows = [Row(name if at == 0 else "", _change(*apart[kind]), kind) for at, kind in enumerate(worst[:SHOWN])]
    if len(worst) > SHOWN:
        rows.append(Row("", f"and {len(worst) - SHOWN} more"))
    return rows or [Row(name, "no difference", f"on {len(scores)} kinds that use it")]


def _cost(whole: Score, part: Score) -> float:
    """Points of the share used that are lost, and of calls that are refused beside."""
    return 100 * (whole.used - part.used + part.refused - whole.refused)


def _change(whole: Score, part: Score) -> str:
    return f"{100 * (part.used - whole.used):+.1f} · {100 * (part.refused - whole.refused):+.1f}"


def _is_apart(whole: Score, part: Score) -> bool:
    return abs(whole.used - part.used) * 100 >= USED_POINTS or abs(whole.refused - part.refused) * 100 >= REFUSED_POINTS


def _plain(score: Score) -> list[float]:
    return [score.used, score.refused]


def _cell(score: Score) -> str:
    return f"{100 * score.used:.1f} · {100 * score.refused:.1f}"
