"""A snapshot of a run folder in one file: its ledger as of one moment, and what belongs to it."""

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

from pipeline import codec
from pipeline.errors import StoreError
from pipeline.store.queries import meta_get
from pipeline.store.schema import connect_reader, connect_writer, store_errors
from pipeline.store.writes import BUDGET_KEY, forget_files, set_meta

#: What of a run folder is in its state beside the ledger. Files of rows and logs are not: they can be made again.
_BESIDE = ("manifest.json", "summary.json", "throughput.jsonl", "batches/**/*")
_LEDGER = "ledger.db"
#: Labels compress to a fifth even so, and faster than a network takes them.
_LEVEL = 1


def pack_snapshot(ledger: Path, archive: Path) -> None:
    """Write the state of the ledger's folder into `archive`; the ledger may be at work. Raises StoreError."""
    copy = archive.with_name(f"{archive.name}.db")
    with store_errors(archive):
        try:
            copy.unlink(missing_ok=True)
            # One read transaction: whole, whatever is written meanwhile.
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
    """Put a state into a run folder that has none. Raises StoreError."""
    try:
        with zipfile.ZipFile(archive) as archived:
            # The ledger last: a folder that has one is whole.
            for name in sorted(archived.namelist(), key=lambda name: name == _LEDGER):
                archived.extract(name, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{archive}: cannot be unpacked: {error}") from error


def record_spent(ledger: Path, usd: float, tokens: int) -> None:
    """Count at least so much as spent, in a ledger that is made where there is none. Raises StoreError."""
    with store_errors(ledger), closing(connect_writer(ledger)) as connection:
        mark = codec.loads(meta_get(connection, BUDGET_KEY) or "{}")
        spent = {"usd": max(usd, mark.get("usd") or 0.0), "tokens": max(tokens, mark.get("tokens") or 0)}
        with connection:
            set_meta(connection, BUDGET_KEY, codec.dumps(spent).decode())
