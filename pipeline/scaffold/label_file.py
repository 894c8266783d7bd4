"""A file of labels beside a first config, where they are too many for it."""

import csv
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from pipeline.records import JSON

#: More labels than these would hide the rest of a config.
IN_CONFIG = 12
#: What a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@")


def list_labels(labels: Sequence[JSON], config: Path) -> str:
    """The name of the file that lists the labels; "" where they fit into the config, or no such file can hold them.

    A file that is there is kept as it is: it may hold meanings that somebody has written. Raises OSError.
    """
    texts = [label for label in labels if isinstance(label, str) and _is_plain(label)]
    if len(texts) < len(labels) or len(texts) <= IN_CONFIG:
        return ""
    path = next(path for path in _paths(config) if not path.exists() or _listed(path) == texts)
    if not path.exists():
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["label", "description"])
            rows.writerows([text, ""] for text in texts)
    return path.name


def _is_plain(label: str) -> bool:
    """Whether a CSV gives it back as it is, and a spreadsheet too."""
    return label == label.strip() and label.isprintable() and not label.startswith(_FORMULA)


def _paths(config: Path) -> Iterator[Path]:
    yield config.with_name("labels.csv")
    yield config.with_name(f"{config.stem}-labels.csv")
    yield from (config.with_name(f"{config.stem}-labels-{number}.csv") for number in count(2))


def _listed(path: Path) -> list[str] | None:
    """The labels in a file that is there; None where it is no such file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row["label"] for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return None
