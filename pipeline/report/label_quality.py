"""Prepares the measured quality of the labels for the page. What the files lack is left out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline import codec
from pipeline.report import charts, view
from pipeline.report.data import ReportData
from pipeline.show import plain, votes_text

#: The most classes of a confusion matrix, because more do not fit a page, and of columns with names, because more do
#: not fit paper.
CLASSES, NAMED = 15, 6
#: The most confusions to list if the matrix does not have all classes.
CONFUSED = 10
#: Shades of a cell, by its share of the row.
SHADES = 5
_FIGURES = {
    "kappa": "Cohen's kappa",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "jaccard": "Jaccard index",
    "mae": "Mean absolute error",
    "spearman": "Spearman's rho",
    "quadratic_kappa": "Quadratic kappa",
    "micro_f1": "Micro F1",
    "within_one": "Share within one",
    "expected_error": "Expected calibration error",
}


def quality_of(report: ReportData) -> dict[str, Any]:
    """Return the accuracy, classes, confusion, and calibration of each column, the votes, and the certificates."""
    votes = (report.state["summary"] or {}).get("votes")
    return {
        "quality": [_column(name, measure) for name, measure in view.measured(report)],
        "so_far": _so_far(report),
        "votes": "" if votes is None else f"Votes on labels: {votes_text(votes)}.",
        "measured_by": _measured_by(report.evaluation),
        "certificates": [_certificate(one) for one in report.certificates],
    }


def _so_far(report: ReportData) -> str:
    """Return what gold in an active run shows: `0.91 (0.86 to 0.94)`."""
    live = report.state["live"] if report.state["running"] else None
    return plain((live or {}).get("gold")).removeprefix("gold ")


def _column(name: str, measure: Mapping[str, Any]) -> dict[str, Any]:
    bins = _bins(measure)
    text = ", ".join(f"{view.percent(accuracy)} at {view.percent(at, 0)}" for at, accuracy in bins)
    return {
        "name": name,
        "figures": list(_figures(measure)),
        "classes": list(_classes(measure)),
        "matrix": _matrix(measure),
        "calibration": charts.calibration_chart(bins, f"Calibration: accuracy {text}") if bins else {},
    }


def _figures(measure: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if codec.is_number(measure.get("accuracy")):
        yield "Accuracy", view.percent(measure["accuracy"])
    if codec.is_number(measure.get("accuracy_low")) and codec.is_number(measure.get("accuracy_high")):
        yield "95% interval", f"{view.percent(measure['accuracy_low'])} to {view.percent(measure['accuracy_high'])}"
    if codec.is_number(measure.get("n")):
        yield "Gold records with a label", f"{measure['n']:,}"
    for name, title in (("unlabelled", "Gold records without a label"), ("examples", "Left out: shown as examples")):
        value = measure.get(name)
        number = value.get("n") if isinstance(value, dict) else value
        if number and codec.is_number(number):
            yield title, f"{number:,}"
    if confusions := measure.get("confusions"):
        yield "Most often confused", ", ".join(f"{gold} as {label} {count:,}" for gold, label, count in confusions)
    flat = {**measure, **(measure["calibration"] if isinstance(measure.get("calibration"), dict) else {})}
    for name, title in _FIGURES.items():
        if codec.is_number(flat.get(name)):
            yield title, f"{flat[name]:.3f}"


def _classes(measure: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    classes = measure.get("classes")
    for name, score in (classes if isinstance(classes, dict) else {}).items():
        if isinstance(score, dict):
            shares = {one: view.percent(score.get(one)) for one in ("precision", "recall", "f1")}
            yield {"name": str(name), **shares, "support": f"{score.get('support') or 0:,}"}


def _matrix(measure: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return rows of (count, shade, whether it is right), in the order of the classes; None without a confusion.

    If there are too many classes, it has the most frequent ones in the gold, and a list of the most frequent
    confusions.
    """
    counts = _confusion(measure.get("confusion"))
    if not counts:
        return None
    golds: dict[str, int] = {}
    for (gold, _), count in counts.items():
        golds[gold] = golds.get(gold, 0) + count
    classes = measure.get("classes")
    known = classes if isinstance(classes, dict) else ()
    names = list(dict.fromkeys([*known, *golds, *(label for _, label in counts)]))
    if more := max(0, len(names) - CLASSES):
        names = sorted(names, key=lambda name: -golds.get(name, 0))[:CLASSES]
    rows = [(gold, [_cell(counts.get((gold, label), 0), golds.get(gold, 0), gold == label) for label in names])
            for gold in names]  # fmt: skip
    confused = [(gold, label, count) for (gold, label), count in counts.items() if gold != label]
    return {
        "columns": names,
        "rows": rows,
        "numbered": len(names) > NAMED,
        "more": f"{more} more classes are not shown." if more else "",
        "confused": sorted(confused, key=lambda one: -one[2])[:CONFUSED] if more else [],
    }


def _cell(count: int, of: int, right: bool) -> tuple[int, int, bool]:
    return count, 0 if not count else max(1, min(SHADES, round(count / of * SHADES))), right


def _confusion(cells: Any) -> dict[tuple[str, str], int]:
    """Count each (gold, label), from {gold: {label: count}} or [gold, label, count] rows."""
    if isinstance(cells, dict):
        cells = [(gold, label, n) for gold, row in cells.items() if isinstance(row, dict) for label, n in row.items()]
    if not isinstance(cells, Sequence):
        return {}
    rows = [row for row in cells if isinstance(row, Sequence) and len(row) == 3 and codec.is_number(row[2])]
    return {(str(gold), str(label)): int(count) for gold, label, count in rows}


def _bins(measure: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return the (confidence, accuracy) of the bins that contain records."""
    calibration = measure.get("calibration")
    calibration = calibration.get("bins") if isinstance(calibration, dict) else calibration
    rows = [one for one in calibration or () if isinstance(one, dict)] if isinstance(calibration, Sequence) else []
    return [
        (one["confidence"], one["accuracy"])
        for one in rows
        if one.get("n") and codec.is_number(one.get("confidence")) and codec.is_number(one.get("accuracy"))
    ]


def _measured_by(evaluation: Mapping[str, Any] | None) -> str:
    """Describe the gold behind the figures of an evaluation."""
    if evaluation is None:
        return ""
    source, at = evaluation.get("gold"), view.clock(evaluation.get("at"))
    gold: Mapping[str, Any] = source if isinstance(source, dict) else {}
    columns = ", ".join(map(str, gold.get("columns") or ()))
    name = gold.get("file") or (f"the input's {columns}" if columns else "gold")
    text = f"Measured{f' on {at}' if at else ''} against {name}."
    if codec.is_number(gold.get("compared")):
        text += f" {gold['compared']:,} records have gold."
    if not_here := gold.get("not_in_run"):
        text += f" {not_here:,} more are not in this run."
    return text


def _certificate(certificate: Mapping[str, Any]) -> dict[str, str]:
    """Return the certificate's title, and its paragraph or, if it is no longer valid, the reason."""
    void = "" if certificate["certified"] else plain(certificate.get("void")) or "it does not hold any more"
    title = "Void certificate" if void else "Certificate"
    return {
        "title": f"{title} of {certificate['column']}",
        "text": f"{void}." if void else plain(certificate.get("text")),
    }
