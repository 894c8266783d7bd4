"""The ledger's file: its tables, its version, and how it is opened."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import SetupError, StoreError
from pipeline.store.rows import COLUMNS, DEFINITIONS
from pipeline.store.sqlitefile import FileFormat, open_reader, open_writer, user_version

VERSION = 5
#: "labl": tells our files from other SQLite databases.
APPLICATION_ID = 0x6C61626C

_OUTCOME = ", ".join(f"{name} {definition}" for name, (definition, _) in DEFINITIONS.items())
# seq needs no AUTOINCREMENT: the ledger counts on from the highest seq of both tables, so none comes twice.
# The digest's index holds six bytes of it: the index is written at random places, and a short one touches fewer pages.
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
#: as versions 2 and 3 had it
_OLD_TURNS = _TURNS.replace("    fault TEXT,\n    cost_usd REAL,\n", "")
#: The parts of the batch lane, and the records in them (see `batches`).
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
#: A ledger of an older version becomes one of the next when a run opens it for writing ...
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
#: ... and looks like one of this version to who only reads it: a name is looked for among the connection's own tables
#: first.
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
#: Rows in the input's order; made when a run asks for that order, since every other run would pay for nothing.
ORDINAL_INDEX = "CREATE INDEX IF NOT EXISTS outcomes_ordinal ON outcomes (ordinal, seq)"
SELECT_OUTCOME = f"SELECT {', '.join(COLUMNS)} FROM outcomes"  # noqa: S608  (constant names)
#: The same without the answer as it came, which rows do not need.
SELECT_ROW = SELECT_OUTCOME.replace(" answer,", " NULL,")


_LEDGER = FileFormat(
    "ledger", APPLICATION_ID, VERSION, _TABLES,
    "this SQLite file is not a labelpipe ledger. Choose another output folder.",
)  # fmt: skip


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes; makes the tables in a new file. Raises SetupError if the file is not a ledger."""
    with _setup_errors(path):
        connection = open_writer(path, _LEDGER, "rwc", _prepare_writer)
    connection.text_factory = _text
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, beside a writer in this or another process. Raises SetupError."""
    if not path.exists():
        raise SetupError(f"{path}: there is no ledger here. If this is a run folder, restore a copy of it.")

    def prepare(connection: sqlite3.Connection, is_empty: bool) -> None:
        if is_empty:
            raise SetupError(f"{path}: the ledger is empty. If a run was here, restore a copy of it.")
        # What is looked up in passing (keys seen in this pass) goes to a file, so that memory stays flat.
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
    """A text; its bytes where they are damaged, which is then seen in the row that has them."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _prepare_writer(connection: sqlite3.Connection, is_new: bool) -> None:
    connection.execute("PRAGMA cache_size = -8000")
    # 32 MB: pages that are written again and again (the digests' index) then reach the file once for many commits.
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    if not is_new:
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring an older file to this version: all of it or, after a kill, nothing."""
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
    """Raises StoreError, which says what to do, where the ledger at this path cannot be used."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(use_failure(path, error)) from error


def use_failure(path: Path, error: Exception) -> str:
    """What went wrong with an open ledger, and what to do."""
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
    """What to do about a file whose content is broken."""
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
