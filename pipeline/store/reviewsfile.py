"""The file of a run's reviews: its tables, its version, and how it is opened."""

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.store.schema import BUSY_S, choose_journal, lacks_shared_memory, leave_wal, wal_bytes

#: The name of the file in a run folder.
NAME = "reviews.db"
VERSION = 1
#: "labr": tells it from a ledger and from other SQLite databases.
APPLICATION_ID = 0x6C616272

# Answers and places are numbered together, so that one number says what the corrections were at a moment.
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
    # Nobody changes what was said, by a slip neither.
    *(
        f"CREATE TRIGGER {table}_{word} BEFORE {word} ON {table} BEGIN SELECT RAISE(ABORT, 'rows are only added'); END"
        for table in ("draws", "draw_items", "answers", "places")
        for word in ("UPDATE", "DELETE")
    ),
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes, for any thread, one at a time. Makes the tables in a new file. Raises SetupError."""
    with _setup_errors(path):
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        # Before SQLite makes it: its journal then has the same permissions. A file that is there is not opened but by
        # SQLite: closing it would give up the locks that this process has on it, and another one deletes the journal.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        return _opened(path, read_only=False)


def connect_reader(path: Path) -> sqlite3.Connection | None:
    """A connection that only reads; None where nothing was written yet. Raises SetupError."""
    if not path.exists() or not path.stat().st_size:
        return None
    with _setup_errors(path):
        connection = _opened(path, read_only=True)
        if not _is_empty(connection):
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


def _opened(path: Path, *, read_only: bool) -> sqlite3.Connection:
    try:
        return _prepared(path, read_only=read_only)
    except sqlite3.OperationalError as error:
        if read_only and not wal_bytes(path):
            return _prepared(path, "&immutable=1", read_only=True)
        if read_only or not lacks_shared_memory(error):
            raise
    connection = _connection(path, "", read_only=False)
    leave_wal(path, connection)
    connection.close()
    return _prepared(path, read_only=False, wal=False)


def _connection(path: Path, more: str, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}{more}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)


def _prepared(path: Path, more: str = "", *, read_only: bool, wal: bool = True) -> sqlite3.Connection:
    connection = _connection(path, more, read_only=read_only)
    try:
        _check_identity(path, connection)
        if not read_only:
            if wal:
                choose_journal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            if _is_empty(connection):
                _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process has made them by now."""
    connection.execute("BEGIN IMMEDIATE")
    statements: Sequence[str] = _TABLES if _is_empty(connection) else ()
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]


def _check_identity(path: Path, connection: sqlite3.Connection) -> None:
    """Raises SetupError if the file is not one of ours, or of a newer labelpipe."""
    connection.execute("BEGIN")  # one view of the file: another process may make the tables between two questions
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    is_new = not (application or version) and _is_empty(connection)
    connection.execute("COMMIT")
    if is_new:
        return
    if application != APPLICATION_ID:
        raise SetupError(f"{path}: this SQLite file does not hold the reviews of a run. Move it away.")
    if version > VERSION:
        raise SetupError(
            f"{path}: the reviews have version {version}, this labelpipe supports up to {VERSION}. "
            "They were made by a newer labelpipe: upgrade with pip install -U labelpipe."
        )
