"""Opens the ledger's file, and defines its tables and version."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import SetupError, StoreError
from pipeline.store.rows import COLUMNS, DEFINITIONS
from pipeline.store.sqlitefile import FileFormat, open_reader, open_writer, user_version

VERSION = 5
#: "labl", which distinguishes our files from other SQLite databases.
APPLICATION_ID = 0x6C61626C

_OUTCOME = ", ".join(f"{name} {definition}" for name, (definition, _) in DEFINITIONS.items())
# seq needs no AUTOINCREMENT: the ledger counts on from the highest seq of both tables, so none occurs twice.
# The digest's index holds six bytes of it: writes to the index are random, and a short one touches fewer pages.
_ARCHIVE = "archived_at REAL NOT NULL, reason TEXT NOT NULL, paid INTEGER NOT NULL"
_LABELLED_REQUEST = "status = 'labelled' AND request_digest IS NOT NULL"
_TURNS = """(
    key TEXT NOT NULL,
    turn INTEGER NOT NULL,
    request_digest BLOB NOT NULL,
    answer TEXT NOT NULL,
    usage TEXT NOT NULL,
    calls INTEGER NOT NULL,
    repairs INTEGER NOT NULL,
    results TEXT NOT NULL,
    model TEXT,
    request_id TEXT,
    latency_s REAL NOT NULL,
    at REAL NOT NULL,
    fault TEXT,
    cost_usd REAL,
    PRIMARY KEY (key, turn)
) WITHOUT ROWID"""
#: The table as in versions 2 and 3.
_OLD_TURNS = _TURNS.replace("    fault TEXT,\n    cost_usd REAL,\n", "")
#: The tables of the batch lane: parts, and the records in them (see `batches`).
_BATCHES = """(
    part INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    lines INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    most_usd REAL,
    most_tokens INTEGER NOT NULL,
    packed_at REAL NOT NULL,
    begun INTEGER NOT NULL,
    file_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    sent_at REAL,
    ended_at REAL,
    facts TEXT NOT NULL,
    books TEXT NOT NULL
)"""
_BATCH_ITEMS = """(
    key TEXT PRIMARY KEY,
    part INTEGER NOT NULL,
    place INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    problem TEXT,
    content INTEGER NOT NULL,
    record TEXT NOT NULL
) WITHOUT ROWID"""
_LANE_TABLES = (
    f"CREATE TABLE batches {_BATCHES}",
    f"CREATE TABLE batch_items {_BATCH_ITEMS}",
    "CREATE INDEX batch_items_part ON batch_items (part, place)",
    "CREATE INDEX batch_items_digest ON batch_items (substr(digest, 1, 6))",
)
_SINK = "name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, position INTEGER NOT NULL, shape TEXT"
_TABLES = (
    f"CREATE TABLE outcomes ({_OUTCOME}, UNIQUE (key))",
    f"CREATE TABLE archived ({_OUTCOME}, {_ARCHIVE})",
    "CREATE INDEX outcomes_problem ON outcomes (status, problem_code) WHERE status <> 'labelled'",
    f"CREATE INDEX outcomes_request ON outcomes (substr(request_digest, 1, 6)) WHERE {_LABELLED_REQUEST}",
    f"CREATE TABLE sinks ({_SINK}, digest BLOB, is_stale INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE days (day TEXT PRIMARY KEY, requests INTEGER NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE turns {_TURNS}",
    *_LANE_TABLES,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
#: Upgrades a ledger of each older version to the next when a run opens it for writing.
_UPGRADES = {
    1: (
        "ALTER TABLE outcomes ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE superseded ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0",
        f"CREATE TABLE turns {_OLD_TURNS}",
    ),
    2: (
        "ALTER TABLE outcomes ADD COLUMN asked_as TEXT",
        "ALTER TABLE superseded ADD COLUMN asked_as TEXT",
        "ALTER TABLE sinks ADD COLUMN digest BLOB",
        "ALTER TABLE sinks ADD COLUMN is_stale INTEGER NOT NULL DEFAULT 0",
        "UPDATE sinks SET is_stale = bytes < 0",
    ),
    3: (
        "ALTER TABLE outcomes DROP COLUMN vote",
        "ALTER TABLE superseded DROP COLUMN vote",
        "ALTER TABLE superseded RENAME TO archived",
        "ALTER TABLE archived RENAME COLUMN superseded_at TO archived_at",
        "ALTER TABLE turns ADD COLUMN fault TEXT",
        "ALTER TABLE turns ADD COLUMN cost_usd REAL",
    ),
    4: _LANE_TABLES,
}
_OLD_TURNS_VIEW = "CREATE TEMP VIEW turns AS SELECT *, NULL AS fault, NULL AS cost_usd FROM main.turns"
_OLD_ARCHIVE = "CREATE TEMP VIEW archived AS SELECT *, superseded_at AS archived_at"
_NO_LANE = (f"CREATE TEMP TABLE batches {_BATCHES}", f"CREATE TEMP TABLE batch_items {_BATCH_ITEMS}")
_OLD_SINKS = "CREATE TEMP VIEW sinks AS SELECT *, NULL AS digest, bytes < 0 AS is_stale FROM main.sinks"
#: Makes an older ledger look like this version to a reader: SQLite looks up names among temporary tables first.
_VIEWS_OF_OLD = {
    1: (
        "CREATE TEMP VIEW outcomes AS SELECT *, 0 AS cache_write_tokens, NULL AS asked_as FROM main.outcomes",
        f"{_OLD_ARCHIVE}, 0 AS cache_write_tokens, NULL AS asked_as FROM main.superseded",
        f"CREATE TEMP TABLE turns {_TURNS}",
        _OLD_SINKS,
        *_NO_LANE,
    ),
    2: (
        "CREATE TEMP VIEW outcomes AS SELECT *, NULL AS asked_as FROM main.outcomes",
        f"{_OLD_ARCHIVE}, NULL AS asked_as FROM main.superseded",
        _OLD_TURNS_VIEW,
        _OLD_SINKS,
        *_NO_LANE,
    ),
    3: (f"{_OLD_ARCHIVE} FROM main.superseded", _OLD_TURNS_VIEW, *_NO_LANE),
    4: _NO_LANE,
}
#: The index for rows in input order. It is made only if a run asks for that order, because it slows down commits.
ORDINAL_INDEX = "CREATE INDEX IF NOT EXISTS outcomes_ordinal ON outcomes (ordinal, seq)"
SELECT_OUTCOME = f"SELECT {', '.join(COLUMNS)} FROM outcomes"  # noqa: S608  (constant names)
#: The same without the model's answer, which rows do not need.
SELECT_ROW = SELECT_OUTCOME.replace(" answer,", " NULL,")


_LEDGER = FileFormat(
    "ledger", APPLICATION_ID, VERSION, _TABLES,
    "this SQLite file is not a labelpipe ledger. Choose another output folder.",
)  # fmt: skip


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the writing connection, and make the tables in a new file. Raises SetupError if it is not a ledger."""
    with _setup_errors(path):
        connection = open_writer(path, _LEDGER, "rwc", _prepare_writer)
    connection.text_factory = _text
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a read-only connection. This or another process may be writing. Raises SetupError."""
    if not path.exists():
        raise SetupError(f"{path}: there is no ledger here. If this is a run folder, restore a copy of it.")

    def prepare(connection: sqlite3.Connection, is_empty: bool) -> None:
        if is_empty:
            raise SetupError(f"{path}: the ledger is empty. If a run was here, restore a copy of it.")
        # Temporary tables (keys seen in this pass) go to a file, so that memory stays flat.
        connection.execute("PRAGMA temp_store = FILE")
        for statement in _VIEWS_OF_OLD.get(user_version(connection), ()):
            connection.execute(statement)

    with _setup_errors(path):
        connection = open_reader(path, _LEDGER, prepare)
    connection.text_factory = _text
    return connection


@contextmanager
def _setup_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SetupError(_open_failure(path, error)) from error


def _text(raw: bytes) -> str | bytes:
    """Return a text, or its bytes if they are damaged, which the row then reports."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _prepare_writer(connection: sqlite3.Connection, is_new: bool) -> None:
    connection.execute("PRAGMA cache_size = -8000")
    # 32 MB, so that pages that change often (the digests' index) reach the file only once for many commits.
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    if not is_new:
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Upgrade an older file to this version in one transaction."""
    if user_version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for version in range(user_version(connection), VERSION):
        for statement in _UPGRADES[version]:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Raise StoreError, with advice, if the ledger at this path cannot be used."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(use_failure(path, error)) from error


def use_failure(path: Path, error: Exception) -> str:
    """Return what went wrong with an open ledger, and what to do."""
    if is_damage(error):
        return damaged(path, error)
    return (
        f"{path}: the ledger cannot be used: {error}. What it holds is safe: put the cause right (is the disk full?), "
        "then run the same command again."
    )


def is_damage(error: Exception) -> bool:
    """Whether the file's content is broken."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(path: Path, error: Exception) -> str:
    """Return what to do about a file whose content is broken."""
    return (
        f"{path}: the ledger is damaged ({error}). Put back a copy of the run folder, or save what can be saved "
        f"with: sqlite3 {path.name} .recover"
    )


def _open_failure(path: Path, error: sqlite3.Error) -> str:
    if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
        return f"{path}: not a ledger ({error}). Move the file away to start over, or choose another output folder."
    if is_damage(error):
        return damaged(path, error)
    return f"{path}: the ledger cannot be opened ({error}). Check that the folder exists and may be written."
