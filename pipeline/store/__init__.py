"""The store: the run folder, the ledger (written first) and the files of rows (made from it)."""

from __future__ import annotations

from pipeline.store.changes import Selection, SinkMarks
from pipeline.store.claims import MovedAside, claim
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.matching import Found, Pair
from pipeline.store.projection import flaw_of
from pipeline.store.proof import FileProof, prove_files
from pipeline.store.queries import Known, RowCounts, SinkMark, Totals
from pipeline.store.rundir import Change, RunDir, RunLock, diff
from pipeline.store.sinks import Sinks
from pipeline.store.sql import SqlOptions, check_place, release_table
from pipeline.store.sqllook import TableLook, look_at_table
from pipeline.store.sqlproof import SqlPlace
from pipeline.store.table import read_table

__all__ = [
    "Change",
    "FileProof",
    "Found",
    "Known",
    "Layout",
    "Ledger",
    "MovedAside",
    "Pair",
    "RowCounts",
    "RunDir",
    "RunLock",
    "Selection",
    "SinkMark",
    "SinkMarks",
    "Sinks",
    "SqlOptions",
    "SqlPlace",
    "TableLook",
    "Totals",
    "check_place",
    "claim",
    "diff",
    "flaw_of",
    "look_at_table",
    "prove_files",
    "read_table",
    "release_table",
]
