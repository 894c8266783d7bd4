"""Formats an evaluation: figures of each field, tables of classes, and the gold that was left out."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.show.formatting import (
    SIMULATED,
    Facts,
    cell_of,
    has,
    many,
    one_line,
    percent,
    plain,
    right_cell,
    short,
    table,
)
from pipeline.terminal import width

#: The most classes with a line, classes in a confusion matrix, and confusions in a list.
CLASSES_MOST, MATRIX_MOST, CONFUSIONS_MOST = 30, 10, 6
#: The most disagreements to show.
DISAGREEMENTS_MOST = 5
#: The most columns for the name of a class.
_NAME_MOST = 24
#: A temperature outside this range shows that confidence and correctness are hardly related.
_COLD, _HOT = 0.1, 10.0
AT_WORK = "The run is in progress: these figures cover the labels so far."
CORRECTED = "People have corrected labels of this run; these figures describe what the model said."


def evaluation_lines(facts: Facts) -> list[str]:
    """Format the evaluation, as wide as the terminal."""
    columns = facts["columns"]
    lines = [_head(facts)]
    for name, field in columns.items():
        lines += ["", *_field_lines(name, field)]
    lines += _disagreement_lines(facts["disagreements"], several=len(columns) > 1)
    lines += ["", *_set_aside(columns), *left_out_lines(facts["gold"], _examples(columns)), *_where(facts)]
    lines += [f"  note        {text}" for text, holds in ((AT_WORK, facts["running"]), (CORRECTED, facts["corrected"]))
              if holds]  # fmt: skip
    return [*lines, SIMULATED] if facts["simulated"] else lines


def _head(facts: Facts) -> str:
    gold = facts["gold"]
    where = gold["file"] if gold["file"] is not None else f"the input's {', '.join(map(repr, gold['columns']))}"
    return f"{facts['run_dir']}: {many(gold['compared'], 'record')} with gold from {where}"


def _field_lines(name: str, field: Facts) -> Iterator[str]:
    """Format one label field: figures, classes, confusions, and the calibration of the model's confidence."""
    column = field["column"]
    title = name if column == name else f"{name} (gold in {column!r})"
    if not field["n"]:
        is_empty = not field["unlabelled"]["n"] and not field["no_label"]["n"]
        yield f"{title}: {'no record that counts has gold' if is_empty else 'no record with gold can be compared'}"
        yield from _unlabelled(field)
        yield from _foreign(field)
        return
    yield f"{title}: {_accuracy_text(field)}"
    if figures := _figures(field):
        yield f"  {' · '.join(figures)}"
    if field["classes"]:
        yield ""
        yield from _class_lines(field["classes"])
    if confusion := field.get("confusion"):
        yield from _confusion_lines(confusion, list(field["classes"]))
    if field["calibration"]:
        yield from _calibration_lines(field["calibration"])
    if n := field.get("no_value"):
        yield f"  no value    {many(n, 'label')} {_is(n)} no number, and {'counts' if n == 1 else 'count'} as wrong"
    yield from _unlabelled(field)
    yield from _foreign(field)


def _accuracy_text(field: Facts) -> str:
    what = "all labels right" if field["kind"] == "set" else "right"
    interval = f"{percent(field['accuracy_low'])} to {percent(field['accuracy_high'])}"
    return f"{percent(field['accuracy'])} {what} (95% interval {interval}), {field['right']:,} of {field['n']:,}"


#: Further figures of a field besides its accuracy, if it has them.
_FIGURES = {
    "kappa": "kappa {:.3f}",
    "quadratic_kappa": "quadratic kappa {:.3f}",
    "macro_f1": "macro F1 {:.3f}",
    "weighted_f1": "weighted F1 {:.3f}",
    "micro_f1": "micro F1 {:.3f}",
    "jaccard": "Jaccard {:.3f}",
    "mae": "mean absolute error {:.3g}",
    "within_one": "within one {:.1%}",
    "spearman": "Spearman {:.3f}",
    "normalised": "{:.1%} if case and white space do not count",
}


def _figures(field: Facts) -> list[str]:
    return [form.format(field[name]) for name, form in _FIGURES.items() if field.get(name) is not None]


def _class_lines(classes: Mapping[str, Facts]) -> Iterator[str]:
    wide = _wide(classes)
    yield f"  {'class':<{wide}}  precision  recall     F1   gold"
    for name, one in list(classes.items())[:CLASSES_MOST]:
        figures = f"{one['precision']:>9.3f}  {one['recall']:>6.3f}  {one['f1']:>5.3f}  {one['support']:>5,}"
        yield f"  {cell_of(name, wide)}  {figures}"
    if len(classes) > CLASSES_MOST:
        yield f"  and {len(classes) - CLASSES_MOST} more classes; --json prints all of them"


def _confusion_lines(confusion: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> Iterator[str]:
    """Format the confusion matrix; if it does not fit the terminal, the most frequent confusions."""
    wrong = [(n, gold, label) for gold, row in confusion.items() for label, n in row.items() if gold != label]
    if not wrong:
        return
    wrong.sort(key=lambda one: -one[0])
    wide = _wide(names)
    cells = [max(5, min(_NAME_MOST, width(name))) for name in names]
    room = shutil.get_terminal_size((100, 24)).columns - 1  # the last column is not used
    if len(names) <= MATRIX_MOST and wide + sum(cells) + 2 * len(cells) + 4 <= room:
        yield ""
        head = "  ".join(right_cell(name, cell) for name, cell in zip(names, cells, strict=True))
        yield f"  {'gold, by label':<{wide}}  {head}"
        for name in names:
            row = confusion.get(name, {})
            counts = "  ".join(f"{row.get(other, 0):>{cell},}" for other, cell in zip(names, cells, strict=True))
            yield f"  {cell_of(name, wide)}  {counts}"
        return
    text = ", ".join(f"{short(gold)} -> {short(label)}: {n:,}" for n, gold, label in wrong[:CONFUSIONS_MOST])
    more = f", and {len(wrong) - CONFUSIONS_MOST} more kinds" if len(wrong) > CONFUSIONS_MOST else ""
    yield ""
    yield f"  confused    {text}{more}"


def _calibration_lines(calibration: Facts) -> Iterator[str]:
    yield ""
    if n := calibration["left_out"]:
        yield f"  confidence  {many(n, 'record')} with a confidence that is no number from 0 to 1"
    if not calibration["n"]:
        return
    yield f"  confidence  {'right':>6}  records"
    for one in calibration["bins"]:
        yield f"  {one['confidence']:>10.2f}  {one['accuracy']:>6.1%}  {one['n']:>7,}"
    text = f"expected calibration error {calibration['expected_error']:.3f}"
    if (temperature := calibration["temperature"]) is not None:
        text += f"; temperature {temperature:.2f}: {_temperature_text(temperature)}"
    yield f"  calibrated  {text}; from {many(calibration['n'], 'record')} with gold"
    if isotonic := calibration["isotonic"]:
        error = f"{isotonic['expected_error']:.3f} after isotonic regression"
        yield f"  isotonic    error {error}, each record judged by the others; the curve is in --json"


def _temperature_text(temperature: float) -> str:
    if not _COLD < temperature < _HOT:
        return "the model's confidence says little about which labels are right"
    if abs(temperature - 1) <= 0.1:
        return "it fits"
    return "the model is too confident" if temperature > 1 else "the model is not confident enough"


def _unlabelled(field: Facts) -> Iterator[str]:
    unlabelled = field["unlabelled"]
    if n := unlabelled["n"]:
        codes = ", ".join(f"{code} {count:,}" for code, count in unlabelled["codes"].items())
        yield f"  unlabelled  {many(n, 'record')} with gold {has(n)} no label and {_is(n)} in no figure: {codes}"


def _foreign(field: Facts) -> Iterator[str]:
    foreign = field["no_label"]
    if not (n := foreign["n"]):
        return
    values = ", ".join(
        f"{short(value)} {count:,}{_similar_label(foreign['like'].get(value))}"
        for value, count in list(foreign["values"].items())[:5]
    )
    if field["kind"] == "number":
        yield f"  no number   {many(n, 'value')} of gold {_is(n)} no number and in no figure: {values}"
    else:
        count = "counts" if n == 1 else "count"
        yield f"  no label    {many(n, 'value')} of gold {_is(n)} no label of the task and {count} as wrong: {values}"


def _similar_label(label: str | None) -> str:
    return "" if label is None else f" (the label is {short(label)})"


def _disagreement_lines(disagreements: Facts, *, several: bool) -> Iterator[str]:
    first = disagreements["first"][:DISAGREEMENTS_MOST]
    if not first:
        return
    yield ""
    yield f"{many(disagreements['n'], 'disagreement')}" + (
        f"; the first {len(first)}" if disagreements["n"] > len(first) else ""
    )
    rows = [
        [one["key"], *([one["field"]] if several else []), plain(one["gold"]), plain(one["label"]), one["text"]]
        for one in first
    ]
    head = ["key", *(["field"] if several else []), "gold", "label", "text"]
    yield from table(head, rows)


def _examples(columns: Mapping[str, Facts]) -> int:
    return max((field["examples"] for field in columns.values()), default=0)


def _set_aside(columns: Mapping[str, Facts]) -> Iterator[str]:
    if n := max((field["set_aside"] for field in columns.values()), default=0):
        yield f"  set aside   {many(n, 'record')} left out, because the prompt was chosen with {_it(n)}"


def left_out_lines(gold: Facts, examples: int) -> Iterator[str]:
    """Format which gold is in no figure, and why."""
    if n := examples:
        yield f"  examples    {many(n, 'record')} left out, because the model is shown {_it(n)} with the right label"
    if n := gold["not_in_run"]:
        keys = _some(gold["not_in_run_keys"], n)
        yield f"  not here    {many(n, 'key')} of gold {has(n)} no outcome in this run: {keys}"
    if n := gold["repeated"]:
        keys = _some(gold["repeated_keys"], n)
        yield f"  repeated    {many(n, 'row')} of gold left out, because the key came before: {keys}"
    for name, why in (("without_key", "no key"), ("unreadable", "unreadable")):
        if n := gold[name]:
            yield f"  {why:<10}  {many(n, 'row')} of gold, the first at {gold['first_unusable'].get(name, '')}"
    if gold["file"] is not None and (n := gold["not_answered"]):
        yield f"  empty       {many(n, 'row')} of gold {has(n)} no value"


def _where(facts: Facts) -> Iterator[str]:
    if path := facts["disagreements"]["file"]:
        yield f"  file        {path}: {many(facts['disagreements']['n'], 'disagreement')}"
    if facts["kept"]:
        yield f"  kept        {facts['kept']}"


def _wide(names: Any) -> int:
    return min(_NAME_MOST, max(14, *(width(one_line(name)) for name in names)))


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _it(n: int) -> str:
    return "it" if n == 1 else "them"


def _some(keys: Sequence[str], n: int) -> str:
    return ", ".join(map(short, keys)) + (", ..." if n > len(keys) else "")
