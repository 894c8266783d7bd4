"""Writes the records on which two labels differ: all of them to a CSV, and the first few for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from pipeline.errors import SetupError
from pipeline.measure.measured_run import MeasuredRun
from pipeline.records import JSON
from pipeline.store import csv_block
from pipeline.task import display_text

#: The most disagreements that are kept for the screen, and the most characters of each text.
SHOWN_MOST, TEXT_MOST = 10, 300


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One label field of one record, or of one of its rows, which then has its own key.

    `one` and `other` are the labels: gold and the run's, or those of two runs, which may also have `gold`.
    """

    key: str
    record: str
    field: str
    one: JSON
    other: JSON
    confidence: float | None = None
    gold: JSON = None


class DifferenceWriter:
    """Counts disagreements, keeps the first few, and writes all of them to a file if one is named. A context manager.

    The file is written under a temporary name and renamed at the end, so that it is either whole or absent.
    """

    def __init__(
        self,
        option: str,
        path: str | Path | None,
        run: MeasuredRun,
        titles: tuple[str, str],
        *,
        gold: str | Path | None = None,
        more: Sequence[Literal["confidence", "gold"]] = (),
    ) -> None:
        self.path = None if path is None else Path(path)
        self._option, self._run, self._titles, self._more = option, run, titles, more
        if self.path is not None and self.path.resolve() in {file.resolve() for file in run.run_dir.files()}:
            raise SetupError(f"{option} {self.path}: is a file of the run; choose another one")
        if self.path is not None and gold is not None and self.path.resolve() == Path(gold).resolve():
            raise SetupError(f"{option} {self.path}: is the gold file; choose another one")
        # Mutable state: the count, the first disagreements, and the open file.
        self.n = 0
        self.first: list[Disagreement] = []
        self._file: TextIO | None = None

    @property
    def wants_fields(self) -> bool:
        """Whether the records' fields are needed."""
        return self.path is not None

    @property
    def only_counts(self) -> bool:
        """Whether further disagreements are neither kept nor written."""
        return self.path is None and len(self.first) == SHOWN_MOST

    def __enter__(self) -> DifferenceWriter:
        if self.path is not None:
            try:
                self._file = self._part.open("w", encoding="utf-8", newline="")
            except OSError as error:
                raise self._failure(error) from error
            self._write([["key", "text", *self._titles, *self._more, "field"]])
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

    def count(self, number: int) -> None:
        """Count further disagreements without keeping them."""
        self.n += number

    def add(self, disagreements: Sequence[tuple[Disagreement, Mapping[str, JSON] | None]]) -> None:
        """Add disagreements, each with the record's fields."""
        self.n += len(disagreements)
        self.first += [one for one, _ in disagreements[: SHOWN_MOST - len(self.first)]]
        if self._file is not None:
            self._write(
                [self._row(one, display_text(fields or {}, self._run.prompt_fields)) for one, fields in disagreements]
            )

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        assert self._file is not None
        try:
            self._file.write(csv_block(rows, escape_formulas=True).decode())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> SetupError:
        return SetupError(f"{self._option} {self.path}: cannot be written: {error.strerror or error}")

    def _row(self, one: Disagreement, text: str) -> list[JSON]:
        return [one.key, text, *self._values(one).values(), one.field]

    def _values(self, one: Disagreement) -> dict[str, JSON]:
        labels = dict(zip(self._titles, (one.one, one.other), strict=True))
        return labels | {name: getattr(one, name) for name in self._more}

    async def facts(self) -> dict[str, Any]:
        """Return the count, the file, and the first disagreements with their texts."""
        rows = await self._run.ledger.labels_of([one.record for one in self.first], fields=True)
        texts = {key: display_text(row.fields or {}, self._run.prompt_fields)[:TEXT_MOST] for key, row in rows.items()}
        first = [
            {"key": one.key, "field": one.field, **self._values(one), "text": texts.get(one.record, "")}
            for one in self.first
        ]
        return {"n": self.n, "file": None if self.path is None else str(self.path), "first": first}
