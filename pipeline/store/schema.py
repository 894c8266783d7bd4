"""The ledger's file: its tables, its version, and how it is opened."""

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.store.rows import COLUMNS

VERSION = 5
#: "labl": tells our files from other SQLite databases.
APPLICATION_ID = 0x6C61626C
#: How long a statement waits for another process's lock, in seconds.
BUSY_S = 60.0

_NO_SHARED_MEMORY = frozenset(
    {
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)

_OUTCOME = """
    seq INTEGER PRIMARY KEY,
    key TEXT {unique} NOT NULL,
    ordinal INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    status TEXT NOT NULL,
    problem_code TEXT,
    attempts INTEGER NOT NULL,
    repairs INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    cost_usd REAL,
    latency_s REAL,
    finished_at REAL,
    line INTEGER NOT NULL,
    source TEXT NOT NULL,
    model TEXT,
    request_id TEXT,
    request_digest BLOB,
    copied_from TEXT,
    asked_as TEXT,
    problem_message TEXT,
    label TEXT,
    fields TEXT NOT NULL,
    answer TEXT,
    record_problem TEXT
"""
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
    f"CREATE TABLE outcomes ({_OUTCOME.format(unique='UNIQUE')})",
    f"CREATE TABLE archived ({_OUTCOME.format(unique='')}, {_ARCHIVE})",
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


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes; makes the tables in a new file. Raises SetupError if the file is not a ledger."""
    uri = _database_uri(path, "rwc")
    try:
        return _connected(path, uri, _prepare_writer)
    except SetupError as error:
        if not lacks_shared_memory(error.__cause__):
            raise
    _connected(path, uri, leave_wal).close()
    return _connected(path, uri, partial(_prepare_writer, wal=False))


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, beside a writer in this or another process. Raises SetupError."""
    if not path.exists():
        raise SetupError(f"{path}: there is no ledger here. If this is a run folder, restore a copy of it.")
    try:
        return _connected(path, _database_uri(path, "ro"), _prepare_reader)
    except SetupError as error:
        if not isinstance(error.__cause__, sqlite3.OperationalError) or wal_bytes(path):
            raise
        # A folder that may not be written: without a WAL the file is complete as it lies there.
        return _connected(path, _database_uri(path, "ro") + "&immutable=1", _prepare_reader)


def _database_uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def wal_bytes(path: Path) -> int:
    """How much a database's write-ahead log holds; 0 where there is none."""
    wal = path.with_name(f"{path.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


def _connected(path: Path, uri: str, prepare: Callable[[Path, sqlite3.Connection], None]) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
    except sqlite3.Error as error:
        raise SetupError(_open_failure(path, error)) from error
    connection.text_factory = _text
    try:
        prepare(path, connection)
    except sqlite3.Error as error:
        connection.close()
        raise SetupError(_open_failure(path, error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _text(raw: bytes) -> str | bytes:
    """A text; its bytes where they are damaged, which is then seen in the row that has them."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _prepare_writer(path: Path, connection: sqlite3.Connection, *, wal: bool = True) -> None:
    is_new = _check_identity(path, connection)
    if wal:
        choose_journal(connection)
    # FULL: a commit that returned is on the disk, whatever happens next.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -8000")
    # 32 MB: pages that are written again and again (the digests' index) then reach the file once for many commits.
    connection.execute("PRAGMA wal_autocheckpoint = 8000")
    if is_new:
        _create(connection)
    else:
        _upgrade(connection)


def _prepare_reader(path: Path, connection: sqlite3.Connection) -> None:
    if _check_identity(path, connection):
        raise SetupError(f"{path}: the ledger is empty. If a run was here, restore a copy of it.")
    # What is looked up in passing (keys seen in this pass) goes to a file, so that memory stays flat.
    connection.execute("PRAGMA temp_store = FILE")
    for statement in _VIEWS_OF_OLD.get(_version(connection), ()):
        connection.execute(statement)


def choose_journal(connection: sqlite3.Connection) -> str:
    """The journal mode that works here: "wal", or "delete" where SQLite knows that there is no shared memory.

    Some file systems (FUSE without mmap) only show it at the first statement after: that error is raised.
    """
    mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if mode != "wal":
        return str(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0])
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")
    return mode


def leave_wal(_path: Path, connection: sqlite3.Connection) -> None:
    """Take the file out of WAL mode where there is no shared memory; what is in the WAL goes into the file.

    Only a connection that was exclusive from its first statement can: https://sqlite.org/wal.html#noshm
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = DELETE")


def lacks_shared_memory(error: BaseException | None) -> bool:
    """Whether SQLite failed because this file system shares no memory between processes."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _NO_SHARED_MEMORY or code & 0xFF == sqlite3.SQLITE_PROTOCOL


def _check_identity(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the file is still empty. Raises SetupError if it is something other than a ledger we know."""
    version = _version(connection)
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if not (version or application or tables):
        return True
    if application != APPLICATION_ID:
        raise SetupError(f"{path}: this SQLite file is not a labelpipe ledger. Choose another output folder.")
    if version > VERSION:
        raise SetupError(
            f"{path}: the ledger has version {version}, this labelpipe supports up to {VERSION}. "
            "It was made by a newer labelpipe: upgrade with pip install -U labelpipe."
        )
    return False


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("COMMIT")


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring an older file to this version: all of it or, after a kill, nothing."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for version in range(_version(connection), VERSION):
        for statement in _UPGRADES[version]:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


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
