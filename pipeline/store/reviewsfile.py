"""Opens the file of a run's reviews, and defines its tables and version."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.store.sqlitefile import FileFormat, is_empty, open_reader, open_writer

#: The name of the file in a run folder.
NAME = "reviews.db"
VERSION = 1
#: "labr", which distinguishes it from a ledger and other SQLite databases.
APPLICATION_ID = 0x6C616272

# Answers and places share one numbering, so that one number identifies a version of the corrections.
_TABLES = (
    (
        "CREATE TABLE draws (id INTEGER PRIMARY KEY, at REAL NOT NULL, seed INTEGER NOT NULL, spec TEXT NOT NULL,"
        " purpose TEXT NOT NULL, blind INTEGER NOT NULL, population INTEGER NOT NULL, digest TEXT NOT NULL)"
    ),
    (
        "CREATE TABLE draw_items (draw INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL,"
        " probability REAL NOT NULL, stratum TEXT NOT NULL, PRIMARY KEY (draw, position), UNIQUE (draw, key))"
        " WITHOUT ROWID"
    ),
    (
        "CREATE TABLE answers (id INTEGER PRIMARY KEY, at REAL NOT NULL, draw INTEGER, key TEXT NOT NULL,"
        " about TEXT NOT NULL, record INTEGER, request BLOB, answered_by TEXT NOT NULL, blind INTEGER NOT NULL,"
        " old_label TEXT, new_label TEXT, unclear INTEGER NOT NULL, note TEXT NOT NULL, takes_back INTEGER)"
    ),
    (
        "CREATE TABLE places (id INTEGER PRIMARY KEY, at REAL NOT NULL, answer INTEGER NOT NULL, key TEXT NOT NULL,"
        " record INTEGER, request BLOB)"
    ),
    # Saved answers must never change, not even by mistake.
    *(
        f"CREATE TRIGGER {table}_{word} BEFORE {word} ON {table} BEGIN SELECT RAISE(ABORT, 'rows are only added'); END"
        for table in ("draws", "draw_items", "answers", "places")
        for word in ("UPDATE", "DELETE")
    ),
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


_REVIEWS = FileFormat(
    "reviews", APPLICATION_ID, VERSION, _TABLES, "this SQLite file does not hold the reviews of a run. Move it away."
)


def connect(path: Path) -> sqlite3.Connection:
    """Open a writing connection for any thread, one at a time. Makes the tables in a new file. Raises SetupError."""
    with _setup_errors(path):
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        # Create the file before SQLite does, so that its journal has the same permissions. Never open an existing file
        # except by SQLite: closing it would release this process's locks, and another process would delete the journal.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return open_writer(path, _REVIEWS, "rw", any_thread=True)


def connect_reader(path: Path) -> sqlite3.Connection | None:
    """Open a read-only connection; return None if nothing has been written yet. Raises SetupError."""
    if not path.exists() or not path.stat().st_size:
        return None
    with _setup_errors(path):
        connection = open_reader(path, _REVIEWS, any_thread=True)
        if not is_empty(connection):
            return connection
        connection.close()
        return None


@contextmanager
def _setup_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{path}: cannot be opened: {error.strerror or error}. Check that the folder may be written and that the "
            "file is no link."
        ) from error
    except sqlite3.Error as error:
        raise SetupError(
            f"{path}: the reviews cannot be opened ({error}). If the file is damaged, restore a copy of it."
        ) from error
