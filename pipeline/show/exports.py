"""Formats the results of an export, a report, and a rename."""

from collections.abc import Mapping, Sequence

from pipeline.facts import DataExport, Export, ReportFile
from pipeline.labelfields import Renamed
from pipeline.show.formatting import SIMULATED, aligned, many
from pipeline.terminal import cut

#: The most classes to show, and the most characters of each. The rest is counted.
SHOWN_CLASSES, CLASS_COLUMNS = 20, 40
#: Why labeled records are in no split.
_WHY = {
    "where": "do not match --where",
    "empty_text": "have an empty text",
    "no_row": "have a label without rows",
    "no_label": "have no value in the label field",
    "near_two_splits": "are new, and similar to records of two splits",
    "near_gold": "were in another split, and are similar to a gold record",
    "no_call": "have a label without a call",
    "no_prompt": "can no longer be rendered in the prompt",
    "invalid_label": "have a label that the schema does not allow",
}


def export_lines(done: Export) -> Sequence[str]:
    """Format where the labels are now, and what changed for that."""
    changes = [f"{count:,} {what}" for what in ("added", "updated", "removed") if (count := getattr(done, what))]
    lines = [
        f"{done.place}: {many(done.rows, 'row')}; {', '.join(changes) or 'it was up to date'}",
    ]
    if done.removed:
        lines.append("  removed  rows of records that have no label in this run now, or fewer rows")
    if done.made_anew:
        lines.append("  again    the table was dropped and created, because a column has another type or name now")
    return [*lines, f"  {SIMULATED}"] if done.simulated else lines


def data_lines(done: DataExport) -> Sequence[str]:
    """Format the splits with their sizes and classes, the groups, and which records were left out and why."""
    total = sum(done.records.values())
    lines = [f"{done.folder}: {many(total, 'record')} of {done.run_dir}"]
    for name, count in done.records.items():
        rows = f", {done.rows[name]:,} rows" if done.rows[name] != count else ""
        lines.append(f"  {name:<6} {count:>9,}  {count / max(1, total):5.1%}{rows}  {done.files[name]}")
    if done.by is not None:
        lines += ["", *_balance(done.by, done.classes, list(done.records))]
    lines += ["", f"  together   {_together(done)}", f"  leakage    {done.leaks} texts are in more than one split"]
    if done.gold:
        lines.append(f"  gold       {many(done.gold, 'record')} with a gold label: none of them is in train")
    if done.examples:
        lines.append(
            f"  examples   {many(done.examples, 'record')} are shown to the model in its prompt, with their labels"
        )
    lines.append(f"  certified  {_certified(done)}")
    if done.remembered:
        lines.append(f"  as before  {many(done.remembered, 'record')} are in the split of an earlier export")
    lines += [f"  left out   {count:,} {_WHY.get(why, why)}" for why, count in done.left_out.items()]
    if done.former:
        lines.append(
            f"  prompt     {many(done.former, 'record')} were asked with another prompt and have the present one"
        )
    lines += [f"  note       {note}" for note in done.notes]
    return [*lines, f"  {SIMULATED}"] if done.simulated else lines


def _certified(done: DataExport) -> str:
    certificate = done.certificate
    if certificate is None:
        return f"no: labelpipe certify {done.run_dir} says how many records to check"
    if not certificate.get("certified"):
        return f"no more: {certificate.get('void') or 'the certificate is void'}"
    share, sure = f"{100 * certificate['error']:.4g}%", f"{100 * certificate['confidence']:.4g}%"
    return (
        f"at most {share} of all labels in {certificate['column']} are wrong, with {sure} confidence (certificate.json)"
    )


def _together(done: DataExport) -> str:
    what = [] if done.group is None else [f"the same {done.group}"]
    near = done.near_duplicates
    what.append("the same text" if near is None else f"the same or a similar text (similarity {near:g} or more)")
    if not done.groups:
        return f"no records have {' or '.join(what)}"
    groups = f"{done.groups:,} group{'s' * (done.groups != 1)}"
    return f"{done.grouped:,} records in {groups} have {' or '.join(what)}"


def _balance(by: str, classes: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> list[str]:
    """Format a table of each class with its share of each split."""
    totals = {name: max(1, sum(counts[name] for counts in classes.values())) for name in names}
    ranked = sorted(classes.items(), key=lambda one: -sum(one[1].values()))
    rows = [[by, *names]]
    for value, counts in ranked[:SHOWN_CLASSES]:
        title = cut(" ".join(value.split()), CLASS_COLUMNS)
        rows.append([title or "(none)", *(f"{counts[name]:,} ({counts[name] / totals[name]:.1%})" for name in names)])
    return aligned(rows, len(ranked) - SHOWN_CLASSES)


def report_lines(written: ReportFile) -> list[str]:
    """Format where the page is."""
    lines = [f"Wrote {written.path} ({written.size_bytes / 1000:,.0f} kB). Open it in a browser."]
    return [*lines, f"  {SIMULATED}"] if written.simulated else lines


def renamed_lines(renamed: Renamed) -> list[str]:
    """Format what was renamed and where, and what is left to do by hand."""
    names = ", ".join(f"{old} -> {new}" for old, new in renamed.pairs)
    head = "Would rename" if renamed.dry_run else "Renamed"
    records = many(renamed.records, "record")
    lines = [f"{head} labels of {renamed.column}: {names}", f"  records   {records} of {renamed.run_dir}"]
    lines += [f"  {'edited' if not renamed.dry_run else 'edits':<8}  {path}" for path in renamed.files]
    lines += [f"  note      {note}" for note in renamed.notes]
    return [*lines, "Nothing was changed." if renamed.dry_run else "No call was made."]
