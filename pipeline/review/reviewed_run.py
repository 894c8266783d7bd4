"""Opens a run for review from its folder alone: the label fields, the carried columns, how records are named."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.records import JSON, Outcome
from pipeline.store import Answer, Layout, Ledger, RunDir, label_digest
from pipeline.targets import merged_run_and_manifest
from pipeline.task import LabelColumn, label_columns

#: The column of a draw that names the record, if no field does.
KEY = "key"


@dataclass(frozen=True, slots=True)
class ReviewedRun:
    """A run to review. `key` is the field that names its records; None if they are named by their place."""

    run_dir: RunDir
    columns: tuple[LabelColumn, ...]
    layout: Layout
    key: str | None
    simulated: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The label columns."""
        return tuple(column.name for column in self.columns)

    @property
    def key_title(self) -> str:
        """The title of the column that names a record in a draw."""
        return self.key or KEY

    def key_column(self, titles: Container[str]) -> str | None:
        """Return the title among these of the column that names a record; None if there is none."""
        return next((title for title in (self.key_title, KEY) if title in titles), None)

    def column(self, name: str | None) -> LabelColumn:
        """Return the label column of this name, or the first. Raises SetupError."""
        for one in self.columns:
            if name in (None, one.name):
                return one
        raise SetupError(f"--column {name}: this run has no such label; it has {', '.join(self.names)}")


async def load_reviewed_run(run: str | Path | None) -> ReviewedRun:
    """Return the run in this folder, or of this config. Raises SetupError if there is no run, or no label yet."""
    run_dir, manifest = await merged_run_and_manifest(run)
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        text = await ledger.meta_get("layout") or await ledger.meta_get("layout_asked")
    if text is None:
        raise SetupError(f"{run_dir.path}: no record was labelled yet: start the run first")
    fingerprint: Mapping[str, Any] = manifest["fingerprint"]
    columns: Sequence[str] = manifest.get("label_columns") or Layout.from_text(text).labels
    return ReviewedRun(
        run_dir,
        tuple(label_columns(fingerprint.get("tools") or [], columns)),
        Layout.from_text(text),
        (manifest.get("reading") or {}).get("key"),
        bool(manifest.get("simulated")),
    )


def answer_about(
    reviewed_run: ReviewedRun,
    outcome: Outcome,
    label: Mapping[str, JSON] | None,
    new: Mapping[str, JSON] | None,
    *,
    unclear: bool,
    note: str,
    by: str = "",
) -> Answer:
    """Create an answer about a record as it is now; `label` is that of its row, with corrections."""
    return Answer(
        key=outcome.record.key,
        by=by,
        about=label_digest(outcome.label, outcome.rows),
        old=None if label is None else {name: label.get(name) for name in reviewed_run.names},
        new=new,
        record=outcome.record.digest,
        request=outcome.request_digest,
        unclear=unclear,
        note=note,
    )


def missing_in(reviewed_run: ReviewedRun, new: Mapping[str, JSON]) -> list[str]:
    """Return the label fields that are still missing for a record without a label."""
    return [column.name for column in reviewed_run.columns if column.is_required and column.name not in new]
