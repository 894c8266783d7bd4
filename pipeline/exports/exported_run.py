"""Opens a run for an export, with its corrections."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.records import Outcome
from pipeline.show import numbers_in_order
from pipeline.store import CorrectionSet, Layout, Ledger, RunDir, read_corrections, rows_of
from pipeline.targets import merged_run_and_manifest
from pipeline.task import LabelColumn, fields_in_prompt, label_columns

#: More distinct numbers than this are a quantity, not classes.
NUMBERS = 12


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run as it is now: its outcomes up to `last_seq`, with people's corrections."""

    folder: RunDir
    manifest: Mapping[str, Any]
    ledger: Ledger
    layout: Layout
    last_seq: int
    corrected: CorrectionSet

    @property
    def simulated(self) -> bool:
        """Whether no model was asked."""
        return bool(self.manifest.get("simulated"))

    @property
    def key(self) -> str | None:
        """The field that names a record."""
        key: str | None = self.manifest.get("reading", {}).get("key")
        return key

    def blocks(self) -> AsyncIterator[list[tuple[int, Outcome]]]:
        """Yield the outcomes with their seqs, in the order of the run's rows, the only one that the ledger indexes."""
        order, corrected = self.layout.order, self.corrected
        return rows_of(self.ledger, order, upto=self.last_seq, corrected=corrected, answers=False)

    @property
    def reviewed(self) -> frozenset[str]:
        """The keys of the records that a person has answered."""
        return frozenset(self.corrected.by_key)

    @property
    def label_columns(self) -> Sequence[str]:
        """The columns that the model fills."""
        return self.manifest.get("label_columns") or self.layout.labels

    @property
    def format(self) -> str:
        """The first format of the run's files of rows."""
        return next((kind for kind in self.layout.formats if kind in ("csv", "jsonl", "parquet")), "csv")


async def open_run(run: str | Path | None, stack: AsyncExitStack) -> ExportedRun:
    """Open a run for reading, until the stack closes. Raises SetupError if no row was written yet."""
    run_dir, manifest = await merged_run_and_manifest(run)
    ledger = await stack.enter_async_context(await Ledger.open(run_dir.ledger, read_only=True))
    text, asked_text = await ledger.meta_get("layout"), await ledger.meta_get("layout_asked")
    if text is None and asked_text is None:
        raise SetupError(f"{run_dir.path}: no row was written yet: start the run first")
    layout = Layout.from_text(text) if text else Layout.from_text(asked_text or "").following(None)
    corrected = await asyncio.to_thread(read_corrections, run_dir.path, column=layout.reviewed)
    return ExportedRun(run_dir, manifest, ledger, layout, await ledger.last_seq(), corrected)


async def class_field(run: ExportedRun) -> str | None:
    """Return the first label field whose values are classes, one for each record: few and short."""
    counts = await run.ledger.label_counts(run.label_columns)
    columns = label_columns(run.manifest.get("fingerprint", {}).get("tools") or (), run.label_columns)
    return next((one.name for one in columns if one.name in counts and _is_class(one, counts[one.name])), None)


def _is_class(column: LabelColumn, counts: Mapping[str, int]) -> bool:
    """Whether each value is a class: not a list, and not one of many numbers."""
    are_many = len(counts) > NUMBERS and numbers_in_order(counts) is not None
    return not column.is_list and (bool(column.values) or not are_many)


def text_fields(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields that the run's prompt names; () if it shows the whole record, or cannot be read."""
    return tuple(sorted(fields_in_prompt(manifest.get("fingerprint", {}))))


def examples_of(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the fields of the records that the run's prompt shows with their labels."""
    examples = manifest.get("fingerprint", {}).get("examples")
    return [{name: value for name, value in one.items() if name != "label"} for one in examples or ()]
