"""Reads and writes the run folder: the ledger, written first, and the files of rows, made from the ledger."""

from pipeline.store.answers import Answer, Correction, Draw, DrawItem, Place, is_same_content, label_digest, retraction
from pipeline.store.batches import BatchBook
from pipeline.store.batchparts import FOLDER, Item, ItemState, LineResult, Part, PartState
from pipeline.store.certificates import (
    CERTAINTY,
    VOID,
    ColumnLabel,
    LabelDigest,
    certificate_of,
    labels_match,
    read_certificates,
    read_column,
    write_certificate,
)
from pipeline.store.changedfiles import MovedFile, move_changed_files
from pipeline.store.columntypes import column_type, infer_kinds
from pipeline.store.correctionset import CorrectionSet, misfit, read_corrections
from pipeline.store.formats import cell, csv_block, json_block, safe_cell
from pipeline.store.labelcounts import corrections_or_none
from pipeline.store.labels import LabelRow, label_hash, population_digest
from pipeline.store.layout import REVIEWED, Layout, Table, distinct
from pipeline.store.ledger import Ledger
from pipeline.store.outcomerows import read_table, rows_of
from pipeline.store.overview import STEP_S, Overview, read_overview
from pipeline.store.projection import row_problem
from pipeline.store.proof import prove_files
from pipeline.store.queries import ArchivedOutcome, Checkpoint, RowCounts, StoredOutcome, Totals
from pipeline.store.reconcile import MatchCounts, UnmatchedRecord
from pipeline.store.renaming import NewDigest, rename_key, renames_of
from pipeline.store.reviews import Reviews, open_reviews, read_reviews
from pipeline.store.rowfile import RowFile, open_rows
from pipeline.store.rundir import Change, RunDir, diff, disk_errors, write_whole
from pipeline.store.shardledgers import clear_merged, count_batches_left, join_ledgers, lock_shards
from pipeline.store.sinks import Sinks
from pipeline.store.snapshotfile import pack_snapshot, record_spent, unpack_snapshot
from pipeline.store.sqlexport import (
    SqlPlace,
    SqlTarget,
    TableExport,
    check_table,
    claim_table,
    export_table,
    release_table,
)
from pipeline.store.writes import BUDGET_KEY, FLEX_KEY, Checkpoints, Selection
