"""Exports a run's labels as training data: files for training, validation, and test in a folder."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.exports.chat_lines import TITLES, ChatLines
from pipeline.exports.dataset_card import NAME as CARD
from pipeline.exports.dataset_card import Features, card
from pipeline.exports.export_folder import ExportFolder, folder_of
from pipeline.exports.exported_run import ExportedRun, class_field, examples_of, open_run, text_fields
from pipeline.exports.held_out import HeldOutGold, load_held_out
from pipeline.exports.near_duplicates import comparable_text
from pipeline.exports.options import DataOptions
from pipeline.exports.selection import Selection, Shape, Where, check_names, table_shape, text_shape
from pipeline.exports.splits import FILE, Shares, SplitRecord, Splits, recall_splits, remember_splits
from pipeline.facts import DataExport
from pipeline.records import JSON, Outcome, Status
from pipeline.store import Layout, RowFile, certificate_of, column_type, infer_kinds, open_rows
from pipeline.version import __version__

#: The file with the certificate of the run's labels.
CERTIFICATE = "certificate.json"
#: The most values that a field of classes may have.
CLASSES = 1_000


async def export_data(run: str | Path | None, to: str | Path, options: DataOptions) -> DataExport:
    """Write the labels of a run as train, val, and test into a folder. In a repeated export, no record changes splits.

    The run may be in progress. Raises SetupError; raises StoreError if the disk fails or the run changes meanwhile.
    """
    folder = folder_of(to)
    async with AsyncExitStack() as stack:
        exported_run = await open_run(run, stack)
        plan = await _make_plan(exported_run, options, folder, Path(to))
        with _disk(folder), closing(Splits(plan.shares, exported_run.last_seq)) as splits:
            return await _Export(exported_run, options, plan, splits).run()


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Convert errors of the temporary database into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"{folder}: not written: the temporary database failed: {error}. Is the disk of the temporary files full?"
        ) from error


@dataclass(frozen=True, slots=True)
class _Plan:
    """An export before anything is read: which rows, how to split them, and where to write them."""

    folder: ExportFolder
    display_path: Path
    shares: Shares
    selection: Selection
    kind: str
    gold: HeldOutGold
    chat: ChatLines | None
    terms: str
    notes: tuple[str, ...]
    examples: frozenset[str]
    certificate: Mapping[str, Any] | None


async def _make_plan(run: ExportedRun, options: DataOptions, folder: Path, display_path: Path) -> _Plan:
    chat = ChatLines(run.folder, run.manifest) if options.chat else None
    kind = "jsonl" if chat else options.format or ("jsonl" if options.hf else run.format)
    shares = Shares(tuple(options.split), options.seed, options.near_duplicates)
    by, notes = await _by(run, options.by)
    if options.text is not None and by is None:
        raise SetupError("--text: no label field has classes; name the field to use with --by")
    texts = (options.text,) if options.text is not None else text_fields(run.manifest)
    selection = Selection(Where(options.where, run.reviewed), texts, run.key, by)
    gold = await load_held_out(options.gold, run, selection, options.sets)
    certificate = await asyncio.to_thread(certificate_of, run.folder.path, by if by in run.label_columns else None)
    names = [f"{name}.{kind}" for name in shares.names] + [CARD] * options.hf + [CERTIFICATE] * bool(certificate)
    terms = codec.dumps([shares.parts, shares.seed, shares.near, by, options.group, texts]).decode()
    examples = frozenset(comparable_text(selection.text_of(one)) for one in examples_of(run.manifest))
    return _Plan(
        ExportFolder(folder, names),
        display_path,
        shares,
        selection,
        kind,
        gold,
        chat,
        terms,
        notes,
        examples,
        certificate,
    )


async def _by(run: ExportedRun, wanted: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the field whose classes are balanced, and notes about it."""
    if wanted is not None:
        return wanted, ()
    field = await class_field(run)
    note = "no label field has classes, so none were balanced; name one with --by"
    return field, () if field is not None else (note,)


class _Export:
    """One export. It reads the run twice: to find the splits, and to write the rows."""

    def __init__(self, run: ExportedRun, options: DataOptions, plan: _Plan, splits: Splits) -> None:
        self._run, self._options, self._plan, self._splits = run, options, plan, splits
        # Mutable state: the layout with the columns of all rows, their kinds, and the counts.
        self._layout: Layout = run.layout
        self._kinds: dict[str, str] = {}
        self._mixed: set[str] = set()
        self._no_lists: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._fields: dict[str, None] = {}
        self._gold = self._examples = 0

    async def run(self) -> DataExport:
        async for block in self._blocks():
            await asyncio.to_thread(self._add_block, block)
        self._check_columns()
        await asyncio.to_thread(self._split)
        with self._plan.folder.staging() as part:
            done, features = await self._write(part)
            return await asyncio.to_thread(self._commit, part, done, features)

    async def _blocks(self) -> AsyncIterator[list[tuple[int, Outcome]]]:
        """Yield the labeled records, in the order of the run's own rows."""
        async for block in self._run.blocks():
            yield [row for row in block if row[1].status is Status.LABELLED]

    # -- the first reading ---------------------------------------------------------------------------------------------

    def _add_block(self, block: Sequence[tuple[int, Outcome]]) -> None:
        self._layout = self._layout.grown([outcome for _, outcome in block])
        units = [unit for seq, outcome in block if (unit := self._split_record(seq, outcome)) is not None]
        self._splits.add(units)
        if len(self._splits.classes) > CLASSES:
            raise SetupError(
                f"--by {self._plan.selection.by}: has more than {CLASSES:,} values; expected a field of classes"
            )

    def _split_record(self, seq: int, outcome: Outcome) -> SplitRecord | None:
        """Return the record to split; None if it is left out."""
        record, selection = outcome.record, self._plan.selection
        self._fields |= dict.fromkeys(record.fields)
        wanted = selection.wanted(outcome)
        text = selection.text_of(record.fields)
        why = "no_row" if not wanted else "where" if not any(wanted) else "" if text.strip() else "empty_text"
        if why:
            self._left_out[why] += 1
            return None
        self._infer_kinds(outcome)
        is_gold = self._plan.gold.holds(record.key, text)
        self._gold += is_gold
        self._examples += bool(self._plan.examples) and comparable_text(text) in self._plan.examples
        return SplitRecord(seq, record.key, text, self._group(outcome), selection.label(outcome, wanted), is_gold)

    def _group(self, outcome: Outcome) -> bytes | None:
        """Return the value of the group; None for a record that is in no group."""
        column = self._options.group
        if column is None:
            return None
        value = {**outcome.record.fields, **(outcome.label or {})}.get(column)
        return None if value in (None, "") else codec.canonical(value)

    def _infer_kinds(self, outcome: Outcome) -> None:
        if self._plan.kind != "parquet" and not self._options.hf:
            return
        table = self._layout.label_table()
        rows = table.rows(outcome)
        kinds = infer_kinds([self._kinds.get(title, "nothing") for title in table.titles], rows)
        self._kinds |= dict(zip(table.titles, kinds, strict=True))
        cells = [(title, value) for row in rows for title, value in zip(table.titles, row, strict=True)]
        self._mixed |= {title for title, value in cells if value is not None and not isinstance(value, str)}
        self._no_lists |= {title for title, value in cells if not _is_list_of_texts(value)}

    def _check_columns(self) -> None:
        self._plan.selection.where.check()
        known = [*self._fields, *self._layout.labels, *self._layout.found]
        options = {"--group": self._options.group, "--by": self._options.by, "--text": self._options.text}
        check_names(options, known if self._fields else [])
        if not self._splits.count():
            left = ", ".join(f"{count:,} {why}" for why, count in self._left_out.items())
            raise SetupError(f"{self._run.folder.path}: no labelled record is left to export{left and f' ({left})'}")

    # -- the splits ----------------------------------------------------------------------------------------------------

    def _split(self) -> None:
        splits, terms = self._splits, self._plan.terms
        splits.join()
        for place in self._split_files():
            splits.remember(recall_splits(place, terms))
        splits.assign()

    def _split_files(self) -> tuple[Path, Path]:
        """Return the files that save the splits: in the export folder, and in the run folder."""
        return self._plan.folder.path / FILE, self._run.folder.path / FILE

    # -- the second reading --------------------------------------------------------------------------------------------

    def _shape(self) -> Shape:
        plan, escapes = self._plan, self._layout.escape_formulas and self._plan.kind == "csv"
        if (chat := plan.chat) is not None:

            def rows(outcome: Outcome, _wanted: Sequence[bool]) -> list[list[JSON]] | str:
                row = chat.row(outcome)
                return row if isinstance(row, str) else [row]

            return Shape(TITLES, rows)
        if self._options.text is not None and plan.selection.by is not None:
            return text_shape(plan.selection, plan.selection.by, self._options.text, escapes=escapes)
        return table_shape(self._layout.label_table(), escapes=escapes)

    def _features(self, shape: Shape) -> Features:
        """Return the columns with their types. Rows of label and text have the types of their source columns."""
        by, text = self._plan.selection.by, self._options.text
        sources = {"label": by, "text": text} if text is not None else {}
        names = [sources.get(title) or title for title in shape.titles]
        if not self._kinds or self._plan.chat or not set(names) <= self._kinds.keys():
            return Features()
        types = [column_type(self._kinds[name]) for name in names]
        if self._plan.kind == "jsonl":  # the other formats have lists as JSON texts
            types = ["list" if name in self._mixed - self._no_lists else kind
                     for name, kind in zip(names, types, strict=True)]  # fmt: skip
        mixed = self._plan.kind != "parquet" and any(
            kind == "string" and name in self._mixed for name, kind in zip(names, types, strict=True)
        )
        label = "label" if text is not None else by
        return Features() if mixed else Features(list(zip(shape.titles, types, strict=True)), label)

    async def _write(self, part: Path) -> tuple[DataExport, Features]:
        plan, shape = self._plan, self._shape()
        features, names = self._features(shape), plan.shares.names
        types = [kind for _, kind in features.columns] or ["string"] * len(shape.titles)
        paths = {name: part / f"{name}.{plan.kind}" for name in names}
        files = [open_rows(path, shape.titles, types, escape_formulas=shape.escapes) for path in paths.values()]
        counts = _Counts(dict.fromkeys(names, 0), dict.fromkeys(names, 0), {})
        try:
            async for block in self._blocks():
                await asyncio.to_thread(self._add, block, shape, files, counts)
        finally:
            for file in files:
                await asyncio.to_thread(file.close)
        await self._require_unchanged(counts)
        return self._result(counts), features

    def _add(
        self, block: Sequence[tuple[int, Outcome]], shape: Shape, files: Sequence[RowFile], counts: _Counts
    ) -> None:
        plan, splits = self._plan, self._splits.of([seq for seq, _ in block])
        counts.records_read += len(splits)
        lines: dict[int, list[list[JSON]]] = {}
        written: list[tuple[bytes, int]] = []
        for seq, outcome in block:
            if seq not in splits:
                continue
            split, label, text = splits[seq]
            rows = shape.rows(outcome, plan.selection.wanted(outcome))
            if isinstance(rows, str):
                self._left_out[rows] += 1
                continue
            lines.setdefault(split, []).extend(rows)
            written.append((text, split))
            name = plan.shares.names[split]
            counts.records[name] += 1
            counts.rows[name] += len(rows)
            counts.classes.setdefault(label, dict.fromkeys(plan.shares.names, 0))[name] += 1
        for split, rows in lines.items():
            files[split].add(rows)
        self._splits.written(written)

    async def _require_unchanged(self, counts: _Counts) -> None:
        expected = self._splits.count() - sum(self._splits.left_out().values())
        if counts.records_read != expected:
            raise StoreError(
                f"{self._run.folder.path}: its labels changed while they were being read. Run the command again"
            )

    def _result(self, counts: _Counts) -> DataExport:
        plan, options, splits = self._plan, self._options, self._splits
        groups, grouped = splits.groups()
        by = plan.selection.by
        empty = [name for name in plan.shares.names if not counts.records[name]]
        notes = [f"{name} is empty: there are too few records, or groups that are too large" for name in empty]
        if (largest := splits.largest()) > sum(counts.records.values()) * min(plan.shares.parts) / 100 > 1:
            notes.append(
                f"{largest:,} records stay together, more than the smallest split is to have. If their texts come from "
                "one template, a higher --near-duplicates or off separates them"
            )
        if beside := splits.beside_gold():
            plural = "s" * (beside != 1)
            notes.append(f"kept together with gold, so in {plan.shares.names[-1]}: {beside:,} other record{plural}")
        return DataExport(
            run_dir=str(self._run.folder.path),
            folder=str(plan.display_path),
            format=plan.kind,
            files={name: str(plan.display_path / f"{name}.{plan.kind}") for name in plan.shares.names},
            records=dict(counts.records),
            rows=dict(counts.rows),
            split=plan.shares.parts,
            seed=options.seed,
            by=by,
            classes=counts.classes if by is not None else {},
            group=options.group,
            near_duplicates=options.near_duplicates,
            groups=groups,
            grouped=grouped,
            leaks=splits.leaks(),
            left_out={**self._left_out, **splits.left_out()},
            gold=self._gold,
            remembered=splits.remembered(),
            examples=self._examples,
            former=plan.chat.former if plan.chat else 0,
            certificate=plan.certificate,
            simulated=self._run.simulated,
            notes=(*plan.notes, *notes),
        )

    def _commit(self, part: Path, done: DataExport, features: Features) -> DataExport:
        if done.leaks:
            raise StoreError(
                f"{done.folder}: not written: {done.leaks:,} texts would be in more than one split. This is a bug"
            )
        plan = self._plan
        if self._options.hf:
            (part / CARD).write_text(card(done, self._run.manifest, features), encoding="utf-8")
        if done.certificate is not None:
            (part / CERTIFICATE).write_bytes(codec.pretty(done.certificate))
        notes = self._remember()
        for name in plan.folder.commit(part, self._facts(done)):
            notes.append(f"{name} was changed since it was exported, so it stays; it is not part of this export")
        return replace(done, notes=(*done.notes, *notes))

    def _remember(self) -> list[str]:
        """Save the splits of the records; return notes."""
        plan, (beside, inside) = self._plan, self._split_files()
        remember_splits(beside, plan.terms, self._splits.assigned())
        try:
            remember_splits(inside, plan.terms, self._splits.assigned())
        except StoreError as error:  # a read-only run folder
            return [f"the splits are stored in {plan.display_path} only: {error}"]
        return []

    def _facts(self, done: DataExport) -> dict[str, Any]:
        """Return the facts in the folder's manifest. It may be published, so they contain no path of this machine."""
        fingerprint = self._run.manifest.get("fingerprint", {})
        facts = {name: value for name, value in done.as_dict().items() if name not in ("folder", "files", "run_dir")}
        return {
            "labelpipe": __version__,
            "run": self._run.folder.path.absolute().name,
            "model": fingerprint.get("model"),
            "session_at": self._run.manifest.get("session_at"),
            **facts,
        }


@dataclass(slots=True)
class _Counts:
    """The records, rows, and classes of each split that were written. All of it is mutable."""

    records: dict[str, int]
    rows: dict[str, int]
    classes: dict[str, dict[str, int]]
    records_read: int = 0


def _is_list_of_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))
