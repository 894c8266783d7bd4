"""The options of an export into a folder, checked before anything is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.exports.splits import NAMES

FORMATS = ("csv", "jsonl", "parquet")
#: The lowest similarity that is allowed: below it, nearly every pair of texts would have to be compared.
LEAST_NEAR = 0.5
NEAR = 0.8
SPLIT = (80.0, 10.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """The options of an export into a folder. Raises SetupError for invalid ones.

    `split` has two percentages (train, test) or three (train, val, test). `by` is the field whose classes are balanced
    (None: the first one that has classes). `group` is a column whose records stay together. Texts with a similarity of
    at least `near_duplicates` stay together; with None, only identical ones. `gold` is a file whose records are not for
    training; `sets` describe how to read it, by keys of [input]: `input.encoding=cp1252`. `where` is an expression that
    must be true for the rows. `format` is csv, jsonl, or parquet (None: the run's). `text` is the field for plain rows
    of label and text. With `chat`, each row is a conversation as it was sent, with the label as its answer. `hf` adds
    the card of a Hugging Face dataset.
    """

    split: Sequence[float] = SPLIT
    seed: int = 0
    by: str | None = None
    group: str | None = None
    near_duplicates: float | None = NEAR
    gold: str | Path | None = None
    sets: Sequence[str] = ()
    where: str | None = None
    format: str | None = None
    text: str | None = None
    chat: bool = False
    hf: bool = False

    def __post_init__(self) -> None:
        _check_split(self.split)
        near = self.near_duplicates
        if near is not None and not LEAST_NEAR <= near <= 1:
            raise SetupError(f"--near-duplicates: got {near:g}; expected a similarity of {LEAST_NEAR} to 1, or off")
        if self.format is not None and self.format not in FORMATS:
            raise SetupError(f"--format: got {self.format!r}; expected {', '.join(FORMATS)}")
        if self.chat and self.text is not None:
            raise SetupError("--chat and --text cannot be combined; give one of them")
        if self.chat and self.format not in (None, "jsonl"):
            raise SetupError(f"--chat writes JSON Lines, so --format cannot be {self.format}: leave it out")


def _check_split(split: Sequence[float]) -> None:
    text = "/".join(f"{part:g}" for part in split)
    if len(split) not in NAMES:
        raise SetupError(f"--split: got {text}; expected two shares (train/test) or three (train/val/test)")
    if not all(part > 0 for part in split):
        raise SetupError(f"--split: got {text}; each share must be more than 0. For train and test give two: 90/10")
    if abs(sum(split) - 100) > 1e-6:
        raise SetupError(f"--split: got {text}, which is {sum(split):g} in total; expected 100")


def parse_split(text: str) -> tuple[float, ...]:
    """Parse a text like 80/10/10. Raises SetupError."""
    try:
        return tuple(float(part) for part in text.split("/"))
    except ValueError:
        raise SetupError(f"--split: got {text!r}; expected percentages like 80/10/10, or 90/10") from None


def parse_similarity(text: str) -> float | None:
    """Parse a text like 0.8; None for off. Raises SetupError."""
    if text == "off":
        return None
    try:
        return float(text)
    except ValueError:
        raise SetupError(f"--near-duplicates: got {text!r}; expected a number like 0.8, or off") from None
