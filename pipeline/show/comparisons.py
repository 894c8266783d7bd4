"""Formats the comparison of two runs."""

from collections.abc import Iterator, Sequence

from pipeline import codec
from pipeline.show.evaluations import CORRECTED, DISAGREEMENTS_MOST, left_out_lines
from pipeline.show.formatting import SIMULATED, Facts, has, many, percent, plain, short, table
from pipeline.units import dollars, duration

#: The most changes of a label to list.
CHANGES_MOST = 8
#: A value of at most this length is shown with its replacement.
_VALUE_MOST = 40
#: A difference with a smaller p-value is called clear.
_CLEAR = 0.05
#: Words for which of two runs is right about a record.
_RIGHT = {
    "both_right": "in both",
    "only_a_right": "only in a",
    "only_b_right": "only in b",
    "both_wrong": "in neither",
}
#: Further figures of each run against gold, if a field has them.
_FIGURES = {"kappa": "kappa", "macro_f1": "macro F1", "jaccard": "Jaccard", "mae": "mean error"}


def comparison_lines(facts: Facts) -> list[str]:
    """Format the comparison, as wide as the terminal."""
    lines = [*_run_lines(facts["runs"]), *_differ_in(facts["differ_in"]), "", _records_text(facts["records"])]
    lines += [f"Only {side} has the label {', '.join(names)}." for side, names in facts["fields_only"].items() if names]
    for name, field in facts["columns"].items():
        lines += ["", *_field_lines(name, field)]
    lines += _difference_lines(facts)
    lines += _left_out(facts)
    if path := facts["differences"]["file"]:
        lines += ["", f"  file        {path}: {many(facts['differences']['n'], 'difference')}"]
    corrected = [side for side, run in zip("ab", facts["runs"], strict=True) if run["corrected"]]
    lines += ["", f"  note        {' and '.join(corrected)}: {CORRECTED}"] if corrected else []
    simulated = [side for side, run in zip("ab", facts["runs"], strict=True) if run["simulated"]]
    return [*lines, f"{' and '.join(simulated)}: {SIMULATED}"] if simulated else lines


def trial_lines(facts: Facts) -> list[str]:
    """Format a trial: the comparison, then what it took."""
    trial = facts["tried"]
    lines = [*comparison_lines(facts), ""]
    known = f", {trial['known_before']:,} done before" if trial["known_before"] else ""
    lines.append(f"  tried       {many(trial['drawn'], 'record')}{known} · {many(trial['calls'], 'call')}")
    if trial["reason"]:
        lines.append(f"  stopped     {trial['reason']}")
    return [*lines, f"  next        to label the rest: {trial['next_step']}"] if trial["next_step"] else lines


def _left_out(facts: Facts) -> Iterator[str]:
    """Format which gold is in no figure."""
    if facts["gold"] is None:
        return
    golds = [field["gold"] for field in facts["columns"].values() if field["gold"] is not None]
    lines = list(left_out_lines(facts["gold"], max((gold["examples"] for gold in golds), default=0)))
    if n := max((gold["unlabelled"] for gold in golds), default=0):
        lines.insert(0, f"  unlabelled  {many(n, 'record')} with gold {has(n)} a label in one run only, or in none")
    if lines:
        yield from ("", *lines)


def _run_lines(runs: Sequence[Facts]) -> Iterator[str]:
    """Format what each run is, and what its answers took."""
    for side, run in zip("ab", runs, strict=True):
        without = run["rejected"] + run["failed"]
        parts = [f"{run['labelled']:,} labelled" + (f", {without:,} without a label" if without else "")]
        if run["cost_usd"] is not None:
            parts.append(_cost_text(run))
        if run["latency_mean_s"] is not None:
            parts.append(f"{run['latency_mean_s']:.2f} s an answer")
        if run["session_s"] is not None:
            parts.append(f"last session {many(run['session_records'], 'record')} in {duration(run['session_s'])}")
        at_work = " (at work)" if run["running"] else ""
        yield f"{side}  {run['run_dir']}{at_work}: {run['model'] or 'model unknown'} · {' · '.join(parts)}"


def _cost_text(run: Facts) -> str:
    each = run["cost_per_record_usd"]
    text = dollars(run["cost_usd"]) + ("" if each is None else f", {dollars(1000 * each)} for 1,000")
    return f"the model would cost {text}" if run["simulated"] else text


def _differ_in(changes: Sequence[Facts]) -> Iterator[str]:
    if not changes:
        yield "Both send the same requests to the same model."
        return
    texts = []
    for change in changes:
        old, new = (codec.dumps(change[side]).decode() for side in "ab")
        is_short = max(len(old), len(new)) <= _VALUE_MOST
        texts.append(f"{change['part']} ({old} -> {new})" if is_short else change["part"])
    yield f"They differ in {', '.join(texts)}."


def _records_text(records: Facts) -> str:
    others = [
        f"{n:,} {words}"
        for name, words in (
            ("only_a", "only in a"),
            ("only_b", "only in b"),
            ("neither", "in neither"),
            ("not_in_b", "of a are not in b"),
            ("not_in_a", "of b are not in a"),
        )
        if (n := records[name])
    ]
    both = f"{many(records['both'], 'record')} {has(records['both'])} a label in both"
    return f"{both}; {', '.join(others)}" if others else both


def _field_lines(name: str, field: Facts) -> Iterator[str]:
    interval = f"{percent(field['agreement_low'])} to {percent(field['agreement_high'])}"
    kappa = "" if field["kappa"] is None else f" · kappa {field['kappa']:.3f}"
    same = f"{percent(field['agreement'])} the same (95% interval {interval})"
    yield f"{name}: {same}, {field['same']:,} of {field['n']:,}{kappa}"
    if "mean_difference" in field:
        yield f"  mean difference {field['mean_difference']:.3g}"
    yield from _changes(field)
    if field["gold"] is not None:
        yield from _gold_lines(field["gold"])


def _changes(field: Facts) -> Iterator[str]:
    """Format which labels became which; for lists, which labels were added and removed."""
    pairs = [(n, a, b) for a, row in field["changes"].items() for b, n in row.items()]
    pairs.sort(key=lambda one: -one[0])
    if pairs:
        text = ", ".join(f"{short(a)} -> {short(b)}: {n:,}" for n, a, b in pairs[:CHANGES_MOST])
        yield f"  changed     {text}" + (f", and {len(pairs) - CHANGES_MOST} more kinds" * (len(pairs) > CHANGES_MOST))
    for name in ("added", "dropped"):
        if counts := list(field.get(name, {}).items()):
            text = ", ".join(f"{short(label)} {n:,}" for label, n in counts[:CHANGES_MOST])
            yield f"  {name:<10}  {text}" + (" ..." if len(counts) > CHANGES_MOST else "")


def _gold_lines(gold: Facts) -> Iterator[str]:
    """Format both runs against gold, and whether the difference is more than chance."""
    if not gold["n"]:
        yield "  no record has gold and a label in both"
        return
    yield ""
    yield f"  on {many(gold['n'], 'record')} with gold"
    names = [name for name in _FIGURES if any(gold[side].get(name) is not None for side in "ab")]
    titles = {name: f"{_FIGURES[name]:>6}" for name in names}
    yield f"      right  {'95% interval':<16}" + "".join(f"  {title}" for title in titles.values())
    for side in "ab":
        one = gold[side]
        interval = f"{percent(one['accuracy_low'])} to {percent(one['accuracy_high'])}"
        figures = {name: "-" if one[name] is None else f"{one[name]:.3f}" for name in titles}
        cells = "".join(f"  {figures[name]:>{len(title)}}" for name, title in titles.items())
        yield f"  {side}  {percent(one['accuracy']):>6}  {interval:<16}{cells}"
    yield f"  right: {', '.join(f'{gold[name]:,} {where}' for name, where in _RIGHT.items())}"
    yield f"  McNemar's exact test: p = {gold['p_value']:.3g}: {_verdict(gold)}"


def _verdict(gold: Facts) -> str:
    a, b = gold["only_a_right"], gold["only_b_right"]
    if a == b:
        return "both are right equally often"
    if gold["p_value"] >= _CLEAR:
        return "the difference may be chance"
    return f"{'a' if a > b else 'b'} is right more often than chance explains"


def _difference_lines(facts: Facts) -> Iterator[str]:
    differences, several = facts["differences"], len(facts["columns"]) > 1
    first = differences["first"][:DISAGREEMENTS_MOST]
    if not first:
        return
    titles = [name for name in first[0] if name not in ("key", "field", "text", "gold")]
    gold = ["gold"] * ("gold" in first[0])
    yield ""
    yield f"{many(differences['n'], 'difference')}" + (
        f"; the first {len(first)}" if differences["n"] > len(first) else ""
    )
    before = ["key", *(["field"] if several else [])]
    rows = [[plain(one[name]) for name in (*before, *gold, *titles, "text")] for one in first]
    yield from table([*before, *gold, "a", "b", "text"], rows)
