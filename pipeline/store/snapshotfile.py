"""Packs a snapshot of a run folder into one file: its ledger at one moment, and the files that belong to it."""

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

from pipeline import codec
from pipeline.errors import StoreError
from pipeline.store.queries import meta_get
from pipeline.store.schema import connect_reader, connect_writer, store_errors
from pipeline.store.writes import BUDGET_KEY, forget_files, set_meta

#: The files of a snapshot besides the ledger. Files of rows and logs are left out, because they can be made again.
_BESIDE = ("manifest.json", "summary.json", "throughput.jsonl", "batches/**/*")
_LEDGER = "ledger.db"
#: Even at this level, labels shrink to a fifth, and faster than a network transfers them.
_LEVEL = 1


def pack_snapshot(ledger: Path, archive: Path) -> None:
    """Write a snapshot of the ledger's folder to `archive`, even during a run. Raises StoreError."""
    copy = archive.with_name(f"{archive.name}.db")
    with store_errors(archive):
        try:
            copy.unlink(missing_ok=True)
            # One read transaction: the copy is consistent, whatever is written meanwhile.
            with closing(connect_reader(ledger)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
                with target:
                    forget_files(target)
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as made:
                made.write(copy, _LEDGER)
                for path in (path for pattern in _BESIDE for path in sorted(ledger.parent.glob(pattern))):
                    if path.is_file():
                        made.write(path, path.relative_to(ledger.parent))
        finally:
            copy.unlink(missing_ok=True)


def unpack_snapshot(archive: Path, folder: Path) -> None:
    """Unpack a snapshot into a run folder that has no run. Raises StoreError."""
    try:
        with zipfile.ZipFile(archive) as archived:
            # Unpack the ledger last, so that a folder that has one is complete.
            for name in sorted(archived.namelist(), key=lambda name: name == _LEDGER):
                archived.extract(name, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{archive}: cannot be unpacked: {error}") from error


def record_spent(ledger: Path, usd: float, tokens: int) -> None:
    """Record that at least this much was spent, in a new ledger if there is none. Raises StoreError."""
    with store_errors(ledger), closing(connect_writer(ledger)) as connection:
        mark = codec.loads(meta_get(connection, BUDGET_KEY) or "{}")
        spent = {"usd": max(usd, mark.get("usd") or 0.0), "tokens": max(tokens, mark.get("tokens") or 0)}
        with connection:
            set_meta(connection, BUDGET_KEY, codec.dumps(spent).decode())
