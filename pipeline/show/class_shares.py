"""Shares of classes for a person: raw beside corrected."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.show.formatting import many
from pipeline.show.views import SIMULATED
from pipeline.terminal import cut

Facts = Mapping[str, Any]
#: Columns that the name of a class may take, and classes that are shown.
_NAME_MOST, CLASSES_MOST = 30, 40


def shares_lines(facts: Facts) -> list[str]:
    """The share of each class, in each group."""
    lines = [f"{facts['run_dir']}: shares of {facts['column']}, {_ground(facts)}"]
    for group in facts["groups"]:
        lines += ["", *_group_lines(facts, group)]
    if "pseudo" in facts:
        lines += ["", f"  pseudo-outcomes  {facts['pseudo']}"]
    return [*lines, SIMULATED] if facts["simulated"] else lines


def _ground(facts: Facts) -> str:
    if not facts["answered"]:
        return "not corrected: nobody has answered a random draw blind. labelpipe certify creates one"
    answers = many(facts["answered"], "blind answer")
    known = f", and by {many(facts['known'], 'record')} that people had checked before" if facts["known"] else ""
    return f"corrected by {answers} of draw {facts['draw']}, which has {facts['drawn']:,} records{known}"


def _group_lines(facts: Facts, group: Facts) -> Iterator[str]:
    if group["group"] is not None:
        yield f"{facts['by']} = {group['group']}: {group['n']:,} labels, {group['answered']:,} checked"
    if not group["classes"]:
        yield "  a number has no classes; --pseudo writes its pseudo-outcomes"
        return
    wide = min(_NAME_MOST, max(len("class"), *(len(name) for name in group["classes"])))
    yield f"  {'class':<{wide}}     raw   corrected   {facts['confidence']:.0%} interval"
    for name, share in list(group["classes"].items())[:CLASSES_MOST]:
        yield f"  {cut(name, wide):<{wide}}  {share['raw']:>6.1%}   {_corrected(share)}".rstrip()
    if (more := len(group["classes"]) - CLASSES_MOST) > 0:
        yield f"  and {more:,} more classes: --json has all of them"


def _corrected(share: Facts) -> str:
    if share["corrected"] is None:
        return ""
    return f"{share['corrected']:>9.1%}   {share['low']:.1%} to {share['high']:.1%}"
