"""Opens our SQLite files: checks that they are ours, and chooses the journal mode that works on their disk."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.errors import SetupError

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


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A kind of file: the id and version in its header, and the statements that make a new one.

    Messages use `name`, and `foreign` if another SQLite file is in its place.
    """

    name: str
    application_id: int
    version: int
    tables: Sequence[str]
    foreign: str


#: Called with a new connection, and whether the file was empty.
Finish = Callable[[sqlite3.Connection, bool], None]


def open_writer(
    path: Path, file_format: FileFormat, mode: str, finish: Finish = lambda *_: None, *, any_thread: bool = False
) -> sqlite3.Connection:
    """Open a writing connection, and make the tables in an empty file. `mode` is "rwc" to create the file, or "rw".

    Raises SetupError if the file is not of this format, and sqlite3.Error.
    """
    uri = _uri(path, mode)

    def prepare(connection: sqlite3.Connection, *, wal: bool) -> None:
        is_empty = _check_identity(path, connection, file_format)
        if wal:
            choose_journal(connection)
        # FULL: after a commit returns, it is on the disk, whatever happens next.
        connection.execute("PRAGMA synchronous = FULL")
        if is_empty:
            _create(connection, file_format.tables)
        finish(connection, is_empty)

    try:
        return _opened(uri, partial(prepare, wal=True), any_thread)
    except sqlite3.Error as error:
        if not _lacks_shared_memory(error):
            raise
    _opened(uri, _leave_wal, any_thread).close()
    return _opened(uri, partial(prepare, wal=False), any_thread)


def open_reader(
    path: Path, file_format: FileFormat, finish: Finish = lambda *_: None, *, any_thread: bool = False
) -> sqlite3.Connection:
    """Open a read-only connection. Raises SetupError if the file is not of this format, and sqlite3.Error."""

    def prepare(connection: sqlite3.Connection) -> None:
        finish(connection, _check_identity(path, connection, file_format))

    try:
        return _opened(_uri(path, "ro"), prepare, any_thread)
    except sqlite3.OperationalError:
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        # The folder may be read-only. Without a WAL, the file is complete as it is.
        return _opened(f"{_uri(path, 'ro')}&immutable=1", prepare, any_thread)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file has no tables yet."""
    return not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]


def choose_journal(connection: sqlite3.Connection) -> str:
    """Set the journal mode that works here, and return it: "wal", or "delete" if SQLite knows of no shared memory.

    Some file systems (FUSE without mmap) fail only at the next statement. That error is raised.
    """
    mode = str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if mode != "wal":
        return str(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0])
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("COMMIT")
    return mode


def user_version(connection: sqlite3.Connection) -> int:
    """Return the version in the file's header."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _opened(uri: str, prepare: Callable[[sqlite3.Connection], None], any_thread: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=not any_thread)
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _leave_wal(connection: sqlite3.Connection) -> None:
    """Turn off WAL mode if there is no shared memory, and move the WAL's content into the file.

    Only a connection that was exclusive from its first statement can do this: https://sqlite.org/wal.html#noshm
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = DELETE")


def _lacks_shared_memory(error: sqlite3.Error) -> bool:
    """Whether SQLite failed because this file system has no memory that processes can share."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _NO_SHARED_MEMORY or code & 0xFF == sqlite3.SQLITE_PROTOCOL


def _check_identity(path: Path, connection: sqlite3.Connection, file_format: FileFormat) -> bool:
    """Whether the file is still empty. Raises SetupError if it has another format, or is from a newer labelpipe."""
    connection.execute("BEGIN")  # one view of the file, because another process may make the tables between queries
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = user_version(connection)
    is_new = not (application or version) and is_empty(connection)
    connection.execute("COMMIT")
    if not is_new and application != file_format.application_id:
        raise SetupError(f"{path}: {file_format.foreign}")
    if version > file_format.version:
        raise SetupError(
            f"{path}: the {file_format.name} file has version {version}, and this labelpipe supports up to "
            f"{file_format.version}. It was made by a newer labelpipe: upgrade with pip install -U labelpipe."
        )
    return is_new


def _create(connection: sqlite3.Connection, tables: Sequence[str]) -> None:
    """Make the tables, unless another process has made them by now."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in tables if is_empty(connection) else ():
        connection.execute(statement)
    connection.execute("COMMIT")
