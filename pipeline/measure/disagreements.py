"""The records on which gold and label differ: a CSV of all of them, and the first few for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from pipeline.errors import SetupError
from pipeline.records import JSON
from pipeline.store import RunDir, csv_block

#: Disagreements that are shown.
SHOWN_MOST = 10
TITLES = ("key", "text", "gold", "label", "confidence", "field")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One label field of one record, or of one of its rows, which then has a key of its own."""

    key: str
    record: str
    field: str
    gold: JSON
    label: JSON
    confidence: float | None


class Disagreements:
    """Counts them, keeps the first, and writes all of them to a file where one is named. A context manager.

    The file is written beside its place and put there at the end, so that it is whole or not there.
    """

    def __init__(self, path: str | Path | None, run_dir: RunDir, shown: frozenset[str], *, escape: bool) -> None:
        self.path = None if path is None else Path(path)
        self._shown, self._escape = shown, escape
        if self.path is not None and self.path.resolve() in {file.resolve() for file in run_dir.files()}:
            raise SetupError(f"--disagreements {self.path}: is a file of the run; name another one")
        # All state that changes.
        self.n = 0
        self.first: list[Disagreement] = []
        self._file: TextIO | None = None

    @property
    def wants_fields(self) -> bool:
        """Whether the records' fields are needed."""
        return self.path is not None

    def __enter__(self) -> Disagreements:
        if self.path is not None:
            try:
                self._file = self._part.open("w", encoding="utf-8", newline="")
            except OSError as error:
                raise SetupError(
                    f"--disagreements {self.path}: cannot be written: {error.strerror or error}"
                ) from error
            self._write([TITLES])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self.path is None:
            return
        self._file.close()
        if error is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    @property
    def _part(self) -> Path:
        assert self.path is not None
        return self.path.with_name(f"{self.path.name}.part")

    def add(self, found: Sequence[tuple[Disagreement, Mapping[str, JSON] | None]]) -> None:
        """So many more, each with the record's fields."""
        self.n += len(found)
        self.first += [one for one, _ in found[: SHOWN_MOST - len(self.first)]]
        if self._file is not None:
            self._write([_row(one, text_of(fields or {}, self._shown)) for one, fields in found])

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        assert self._file is not None
        try:
            self._file.write(csv_block(rows, escape_formulas=self._escape).decode())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> SetupError:
        return SetupError(f"--disagreements {self.path}: cannot be written: {error.strerror or error}")


def _row(one: Disagreement, text: str) -> list[JSON]:
    return [one.key, text, one.gold, one.label, one.confidence, one.field]


def text_of(fields: Mapping[str, JSON], shown: frozenset[str]) -> str:
    """What a person recognises a record by: the longest text that its prompt shows, else that it has."""
    texts = [value for name, value in fields.items() if isinstance(value, str) and (not shown or name in shown)]
    texts = texts or [value for value in fields.values() if isinstance(value, str)]
    return max(texts, key=len, default="")
