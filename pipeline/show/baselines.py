"""Formats the result of a baseline classifier."""

from collections.abc import Sequence

from pipeline.facts import Baseline
from pipeline.show.formatting import SIMULATED, aligned
from pipeline.terminal import cut

#: The most classes, and doubtful labels, to show.
SHOWN_CLASSES, SHOWN_DOUBTS = 20, 10
_COLUMNS = 40
_WHY = {
    "several_rows": "have several rows",
    "no_label": "have no value in the label field",
    "empty_text": "have an empty text",
    "rare_class": "have a class that is too rare to be learned",
}


def baseline_lines(done: Baseline) -> Sequence[str]:
    """Format whether the labels can be learned, how well each class is, and which labels are doubtful."""
    texts = ", ".join(done.texts) or "all texts"
    interval = f"{done.accuracy_low:.1%} to {done.accuracy_high:.1%}"
    lines = [
        f"{done.run_dir}: {done.by} from {texts}, {done.n:,} records, {done.folds}-fold cross-validated",
        f"  accuracy   {done.accuracy:.1%} ({interval}); always {_excerpt(done.majority)}: {done.majority_share:.1%}",
        f"  macro F1   {done.macro_f1:.3f}",
        f"  learnable  {_learnable(done)}",
        "",
        *_classes(done),
    ]
    if done.n < done.of:
        lines.append(f"  sample     {done.n:,} of {done.of:,} records; the doubtful labels are from all of them")
    lines += [f"  left out   {count:,} {_WHY.get(why, why)}" for why, count in done.left_out.items()]
    lines += _doubts(done)
    return [*lines, f"  {SIMULATED}"] if done.simulated else lines


def _learnable(done: Baseline) -> str:
    if done.learnable:
        return "yes: better than always predicting the most frequent label"
    return "not by this classifier: no better than always predicting the most frequent label"


def _classes(done: Baseline) -> list[str]:
    ranked = sorted(done.classes.items(), key=lambda one: -one[1]["support"])
    rows = [[done.by, "precision", "recall", "F1", "records"]]
    for name, one in ranked[:SHOWN_CLASSES]:
        figures = [f"{one[figure]:.3f}" for figure in ("precision", "recall", "f1")]
        rows.append([_excerpt(name), *figures, f"{int(one['support']):,}"])
    return aligned(rows, len(ranked) - SHOWN_CLASSES)


def _doubts(done: Baseline) -> list[str]:
    differing = [doubt for doubt in done.doubts if doubt.label != doubt.given]
    if not differing:
        return ["", "  It agrees with every label."]
    rows = [["key", "label", "baseline", "probability"]]
    rows += [
        [_excerpt(one.key), _excerpt(one.label), _excerpt(one.given), f"{one.probability:.3f}"] for one in differing
    ]
    lines = ["", "  The labels that it considers least likely:", *aligned(rows[: SHOWN_DOUBTS + 1])]
    if done.file is not None:
        lines.append(f"  file       {done.file}: {len(differing):,} records, draw {done.draw}; fill it in, then:")
        lines.append(f"             labelpipe review {done.run_dir} --from {done.file} --by NAME")
    return lines


def _excerpt(text: str) -> str:
    return cut(" ".join(text.split()), _COLUMNS)
