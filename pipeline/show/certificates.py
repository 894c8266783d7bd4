"""Formats certificates: their state, and their text."""

from collections.abc import Iterator

from pipeline.show.formatting import SIMULATED, Facts, has, many
from pipeline.units import shorten_list

#: The most names of reviewers to show.
_NAMES_MOST = 6


def certify_lines(facts: Facts) -> list[str]:
    """Format the state of a certificate, and what to do next."""
    head = f"{facts['run_dir']}: {facts['column']}, {many(facts['n'], 'label')}"
    lines = [head, "", *_STATES[facts["state"]](facts), ""]
    lines += [f"  {name:<10} {text}" for name, text in _rows(facts) if text]
    return [*lines, SIMULATED] if facts["simulated"] else lines


def _drawing(facts: Facts) -> Iterator[str]:
    if not facts["answered"]:
        yield (
            f"{many(facts['drawn'], 'record')} {has(facts['drawn'])} to be checked, without seeing the model's label. "
            f"They were drawn at random (draw {facts['draw']})."
        )
        yield (
            f"If about {_percent(facts['error'] / 2)} of the labels are wrong or fewer, that is probably all. "
            "Otherwise the command then names the other records to check."
        )
    else:
        wait = "waits" if facts["check"] == 1 else "wait"
        answered = f"{facts['answered']:,} {has(facts['answered'])} one"
        yield f"{many(facts['check'], 'record')} of the draw {wait} for an answer ({answered})."
        yield "Until then each of them counts as wrong."


def _checking(facts: Facts) -> Iterator[str]:
    yield (
        f"Not certified yet: people have to check {facts['check']:,} more "
        f"label{'s' * (facts['check'] != 1)} (draw {facts['draws'][-1]}). {_order(facts)}"
    )
    yield f"{many(facts['kept'], 'label')} may be kept as they are."
    if facts["unclear"]:
        yield (
            f"{facts['unclear']:,} of the draw were answered as unclear. They count as wrong, and somebody has to "
            "decide them."
        )


def _order(facts: Facts) -> str:
    names = " and ".join(facts["certainty"])
    if names:
        return f"They are the least certain ones, by {names}."
    return (
        "Nothing says how certain the labels are, so they are a random part of the file. Votes (quality.votes) or a "
        "label field confidence would leave fewer to check."
    )


def _certified(facts: Facts) -> Iterator[str]:
    yield certificate_text(facts)


def _void(facts: Facts) -> Iterator[str]:
    yield f"Not certified: {facts['void']}. The answers stay, and these records need no further check."
    yield f"Start over: labelpipe certify {facts['run_dir']} --column {facts['column']} --anew"


_STATES = {"draw": _drawing, "check": _checking, "certified": _certified, "void": _void}


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    design = f"; design {facts['design']}, held to {_percent(1 - facts['risk'])}" if facts["design"] > 1 else ""
    error, confidence = _percent(facts["error"]), _percent(facts["confidence"])
    yield "promise", f"at most {error} wrong ({facts['allowed']:,}), with {confidence} confidence{design}"
    if facts["answered"]:
        whose = "" if facts["certified"] else " for the whole file as it is"
        yield "bound", f"at most {_percent(facts['bound'])} wrong{whose}"
        waiting = facts["drawn"] - facts["answered"]
        text = f"{facts['wrong']:,} of {facts['answered']:,} answered wrong, {facts['unclear']:,} unclear"
        yield "draw", f"{text}, {waiting:,} waiting; seed {facts['seed']}"
    if facts["not_blind"]:
        answers = f"{many(facts['not_blind'], 'answer')} came from people who had seen the model's label"
        yield "not blind", f"{answers}. They count as wrong, unless somebody else answers these records blind"
    yield "outside", _outside(facts)
    yield "next", _next(facts)
    if facts["state"] in ("draw", "check") and "file" not in facts:
        yield "or a file", f"labelpipe certify {facts['run_dir']} --column {facts['column']} --to draw.csv"


def _outside(facts: Facts) -> str:
    counts = [f"{many(facts['without_label'], 'record')} without a label"] if facts["without_label"] else []
    if facts["added_since"]:
        counts.append(f"{many(facts['added_since'], 'label')} that came after the draw")
    return ", ".join(counts)


def _next(facts: Facts) -> str:
    run = facts["run_dir"]
    if facts["state"] not in ("draw", "check"):
        return ""
    how, which = ("without the model's labels", 0) if facts["state"] == "draw" else ("with the model's labels", -1)
    if "file" not in facts:
        return f"labelpipe review {run} --draw {facts['draws'][which]} --by NAME"
    return (
        f"fill in {facts['file']} ({how}), then: "
        f"labelpipe review {run} --from {facts['file']} --by NAME --draw {facts['draws'][which]}"
    )


# -- the certificate ---------------------------------------------------------------------------------------------------


def certificate_text(facts: Facts) -> str:
    """Return the certificate as a self-contained paragraph."""
    if facts["void"]:
        return f"VOID: {facts['void']}. This certificate of {facts['column']} is no longer valid."
    return " ".join([*_promise(facts), *_ground(facts), *_limits(facts)])


def _promise(facts: Facts) -> Iterator[str]:
    yield (
        f"With {_percent(facts['confidence'])} confidence, at most {_percent(facts['error'])} of the "
        f"{many(facts['n'], 'label')} in {facts['column']} are wrong, that is {facts['allowed']:,}. "
        f"The bound that was reached is {_percent(facts['bound'])}."
    )


def _ground(facts: Facts) -> Iterator[str]:
    if facts["drawn"]:
        yield (
            f"This rests on {many(facts['drawn'], 'record')} drawn at random without replacement on "
            f"{(facts['drawn_at'] or '')[:10]}. People who had not seen the model's label answered "
            f"{facts['drawn'] - facts['not_blind']:,} of them; {facts['wrong']:,} labels were wrong and are corrected."
        )
        if facts.get("extends"):
            yield f"They extend draw {facts['extends']}, which was made for a review before the error was chosen."
        if others := facts["unclear"] + facts["not_blind"]:
            yield f"{others:,} more, which were unclear or not answered blind, counted as wrong; people decided them."
    if facts["checked_before"]:
        yield f"{many(facts['checked_before'], 'record')} had been checked by people before the draw."
    if facts["checked"]:
        order = " and ".join(facts["certainty"])
        which = f"the least certain ones by {order}" if order else "a random part of the file"
        yield f"People have checked {many(facts['checked'], 'record')} beyond the {facts['kept']:,} kept: {which}."
    if facts["reviewers"]:
        dates = sorted({(facts[name] or "")[:10] for name in ("first_answer_at", "last_answer_at")})
        yield f"Checked by {shorten_list(facts['reviewers'], _NAMES_MOST)} ({' to '.join(dates)})."
    if facts["design"] > 1:
        yield f"It is design {facts['design']} of this run, held to a risk of {_percent(facts['risk'])}."


def _limits(facts: Facts) -> Iterator[str]:
    yield f"Method: {facts['method']}."
    yield (
        "What people answered is taken as the truth. The certificate is about these labels in this file; it says "
        "nothing about other files, about a single label, or about each class on its own."
    )
    if outside := _outside(facts):
        yield f"Outside of it: {outside}."
    if facts["simulated"]:
        yield SIMULATED


def _percent(share: float) -> str:
    """Format a share: `5%`, `2.5%`, `3.75%`."""
    return f"{round(100 * share, 2):g}%"
