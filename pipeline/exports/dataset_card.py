"""Writes the card of a Hugging Face dataset: README.md, with a head for machines and a body for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import codec
from pipeline.facts import DataExport
from pipeline.version import __version__

NAME = "README.md"
#: The names of splits at Hugging Face, if they differ.
_SPLITS = {"val": "validation"}
_TYPES = {"bool": "bool", "int64": "int64", "double": "float64", "string": "string"}


@dataclass(frozen=True, slots=True)
class Features:
    """The columns with their types, or none if a column has no simple type; and the name of the label column."""

    columns: Sequence[tuple[str, str]] = ()
    label: str | None = None


def card(done: DataExport, manifest: Mapping[str, Any], features: Features) -> str:
    """Return the text of the card."""
    lines = [
        "---",
        "# license: choose one before you publish this",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for name, path in done.files.items():
        lines += [f"  - split: {_SPLITS.get(name, name)}", f"    path: {path.rpartition('/')[2]}"]
    if features.columns:
        lines += ["dataset_info:", "  features:"]
    for name, kind in features.columns:
        lines += _feature(name, kind, sorted(done.classes) if name == features.label else ())
    lines += ["---", "", "# Dataset card", "", *_about(done, manifest), ""]
    lines += ["| split | records | rows |", "|---|---|---|"]
    lines += [f"| {_SPLITS.get(name, name)} | {done.records[name]:,} | {done.rows[name]:,} |" for name in done.files]
    if done.by is not None:
        lines += ["", *_balance(done)]
    return "\n".join([*lines, ""])


def _feature(name: str, kind: str, classes: Sequence[str]) -> list[str]:
    head = f"  - name: {_quoted(name)}"
    if kind == "list":
        return [head, "    sequence: string"]
    if kind != "string" or not classes:
        return [head, f"    dtype: {_TYPES[kind]}"]
    names = [f"          '{number}': {_quoted(value)}" for number, value in enumerate(classes)]
    return [head, "    dtype:", "      class_label:", "        names:", *names]


def _quoted(text: str) -> str:
    """Quote the text for YAML, which accepts JSON's quotes."""
    return codec.dumps(codec.clean_text(text)).decode()


def _about(done: DataExport, manifest: Mapping[str, Any]) -> list[str]:
    model = manifest.get("fingerprint", {}).get("model", "a model")
    when = str(manifest.get("session_at", ""))[:10]
    lines = [
        f"The labels were given by `{model}` through labelpipe {__version__}; the last session began on {when}.",
        _checked(done),
    ]
    if done.simulated:
        lines.insert(0, "**The labels are simulated: no model was asked. Use them only to try things out.**")
    if done.near_duplicates is None:
        sentence = "Records with the same text are in the same split."
    else:
        sentence = f"Records with the same or a similar text (Jaccard similarity {done.near_duplicates:g} or more of "
        sentence += "5-character shingles) are in the same split."
    return [*lines, sentence]


def _checked(done: DataExport) -> str:
    certificate = done.certificate
    if certificate is None or not certificate.get("certified"):
        return "They are not certified: nobody has shown how many of them are wrong."
    text = " ".join(str(certificate.get("text", "")).split())
    return f"They are certified (`certificate.json`, about all labels of the run): {text}"


def _balance(done: DataExport) -> list[str]:
    names = list(done.files)
    lines = [f"| {_cell(done.by or '')} | {' | '.join(_SPLITS.get(name, name) for name in names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for value, counts in done.classes.items():
        lines.append(f"| {_cell(value)} | {' | '.join(f'{counts[name]:,}' for name in names)} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(codec.clean_text(text).split()).replace("|", "\\|").replace("<", "&lt;")
