"""Manages the run folder: its file names, lock, manifest, and summary."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from pipeline import codec
from pipeline.errors import RunInUseError, SetupError, StoreError
from pipeline.records import JSON
from pipeline.store.reviewsfile import NAME as REVIEWS
from pipeline.store.reviewsfile import connect as connect_reviews
from pipeline.store.schema import connect_writer

#: The prefixes of a run's own files. All other files in the folder are the user's.
_OURS = (
    "ledger.db", "reviews.db", "splits.db", "labels.", "failed.", "manifest.json", "summary.json", "live.json",
    "run.log", "lock", "control.", "evaluations.", "batches", "certificate.", "throughput.", "report.html",
)  # fmt: skip
#: A text that is longer than this, or has several lines, is shown as a line diff.
SHORT_TEXT = 80


class _In:
    """The path of a file in the folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run_dir: RunDir, _kind: type[RunDir]) -> Path:
        return run_dir.path / self._name


@dataclass(frozen=True, slots=True)
class RunDir:
    """A folder that contains one run."""

    path: Path

    #: Every outcome. Everything else can be made from it.
    ledger = _In("ledger.db")
    #: The records without a label.
    failed = _In("failed.csv")
    #: What defines the run.
    manifest = _In("manifest.json")
    #: How the run ended.
    summary = _In("summary.json")
    #: The events of the run, as JSON Lines.
    log = _In("run.log")
    #: What `check` found out about the server, and so not one of the run's own files.
    server = _In("server-card.json")
    #: The results of `evaluate`, one JSON line each.
    evaluations = _In("evaluations.jsonl")
    #: How many calls were answered and refused in each span of time, as JSON Lines.
    throughput = _In("throughput.jsonl")
    #: The run's results, as a page for people.
    report = _In("report.html")
    #: The ledger from before the run was split into shards.
    before_shards = _In("shards/base.db")
    #: What a killed merge left of shards whose outcomes are in the ledger.
    merged = _In("shards.merged")

    def labels(self, kind: str = "csv") -> Path:
        """Return the path of the labels as csv, jsonl, or parquet."""
        return self.path / f"labels.{kind}"

    def open_for_writing(self) -> RunLock:
        """Make the folder if necessary, and lock out other processes until the lock is closed.

        Only the owner can read a new folder, because records may be private. The lock ends with the process, however
        that ends. Raises RunInUseError, or SetupError if the folder cannot be written or one of its files is a link.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.refuse_links()
            return RunLock(self.path)
        except OSError as error:
            raise SetupError(
                f"{self.path}: the run folder cannot be written: {error.strerror or error}. "
                "Choose another with --output, or fix its permissions."
            ) from error

    def refuse_links(self) -> None:
        """Raise SetupError if one of the run's files is a link, because its target is not the run's."""
        for file in self.files():
            if file.is_symlink():
                raise SetupError(
                    f"{file}: is a link, and all files of a run must be inside its folder. "
                    "Replace the link with the file, or choose another folder with --output."
                )

    def is_running(self) -> bool:
        """Whether a process on this machine has locked the folder or one of its shards.

        The owner file remains after a kill, so the process is checked too.
        """
        if any(RunDir(one.parent).is_running() for one in self.path.glob("shards/**/lock.owner")):
            return True
        if os.name == "nt":  # On Windows, `os.kill(pid, 0)` sends Ctrl-C.
            return (self.path / "lock.owner").exists() and _is_locked(self.path)
        try:
            owner = codec.loads((self.path / "lock.owner").read_bytes())
            pid = int(owner["pid"])
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return not _is_dead(pid)

    def files(self) -> list[Path]:
        """Return the run's own files that exist, by name."""
        try:
            return sorted(file for file in self.path.iterdir() if file.name.startswith(_OURS))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def shards(self) -> list[RunDir]:
        """Return the run folders of the shards that have started, in order."""
        try:
            folders = [one for one in (self.path / "shards").iterdir() if one.name.isdigit()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [RunDir(one) for one in sorted(folders) if (one / "ledger.db").exists()]

    @property
    def has_shards(self) -> bool:
        """Whether the run is in shards, some of which may have outcomes that the run's own ledger lacks."""
        return (self.path / "shards" / "plan.json").exists()

    def refuse_shards(self) -> None:
        """Raise SetupError if the run has shards, which would ask for the same records."""
        if self.has_shards:
            advice = "is in shards. Go on with run --shards and the same number, or put them together first:"
            raise SetupError(f"{self.path} {advice} labelpipe merge {self.path}")

    def refuse_leftovers(self) -> None:
        """Raise SetupError if a run left files without the ledger that records what was paid for.

        Call it with the lock, before anything is written.
        """
        if self.ledger.exists() and self.ledger.stat().st_size:
            return
        lost = "empty" if self.ledger.exists() else "gone"
        left = [file.name for file in self.files() if not file.name.startswith(("lock", "ledger.db"))]
        if "manifest.json" in left:
            raise SetupError(
                f"{self.path}: this run's ledger (ledger.db) is {lost}, so nobody knows which records were labelled "
                "and paid for. Restore a copy of ledger.db, or start over with --fresh: it moves what is left "
                f"({', '.join(left)}) aside."
            )
        if left:
            raise SetupError(
                f"{self.path}: {', '.join(left)} would be overwritten, and no run made it that is still here. Choose "
                "another folder with --output, or move it; --fresh moves it aside."
            )

    def refuse_rows(self) -> None:
        """Raise SetupError if a file of rows contains a row. Call it if the ledger has no outcomes."""
        for file in self.files():
            # A partial file of a killed session is never the only copy.
            if file.name.startswith(("labels.", "failed.csv")) and file.suffix != ".part" and _has_rows(file):
                raise SetupError(
                    f"{file}: contains rows, but the ledger beside it has none. Put back the ledger that belongs to "
                    "it, or start over with --fresh, which moves both aside."
                )

    def read_manifest(self) -> dict[str, JSON] | None:
        """Return the manifest, or None if there is none yet. Raises SetupError if it cannot be read."""
        return _read(self.manifest)

    def write_manifest(self, manifest: Mapping[str, JSON]) -> None:
        """Save the manifest atomically."""
        write_whole(self.manifest, codec.pretty(manifest))

    def note_simulated(self) -> None:
        """Record in the manifest that there are simulated labels."""
        manifest = self.read_manifest()
        if manifest is not None and not manifest.get("simulated"):
            self.write_manifest({**manifest, "simulated": True})

    def write_server(self, card: Mapping[str, JSON]) -> None:
        """Save the server card, even if there is no run yet. Raises StoreError or OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self.server, codec.pretty(card))

    def read_summary(self) -> dict[str, JSON] | None:
        """Return the summary, or None if the run has not ended. Raises SetupError if it cannot be read."""
        return _read(self.summary)

    def write_summary(self, summary: Mapping[str, JSON]) -> None:
        """Save the summary atomically."""
        write_whole(self.summary, codec.pretty(summary))

    def clear_summary(self) -> None:
        """Remove the summary of the last session, because a new one begins."""
        self.summary.unlink(missing_ok=True)


class RunLock:
    """A lock on a run folder for this process, until `close`."""

    def __init__(self, folder: Path) -> None:
        import filelock

        self._owner = folder / "lock.owner"
        self._lock = filelock.FileLock(folder / "lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise RunInUseError(_in_use(folder, self._owner)) from None
        # In a separate file, because not every system can read a locked file.
        now, host = datetime.now(UTC).isoformat(timespec="seconds"), gethostname()
        write_whole(self._owner, codec.pretty({"pid": os.getpid(), "started_at": now, "host": host}))

    def move(self, files: Sequence[Path], to: Path) -> None:
        """Move the run while no other session can begin in it: the whole folder, or only these files of a shared one.

        Raises OSError.
        """
        folder = self._owner.parent
        is_all = len(files) == len(list(folder.iterdir()))
        if is_all and not folder.samefile(Path.cwd()):
            if os.name == "nt":  # pragma: no cover - Windows cannot rename a folder that contains an open file
                self.close()
            folder.rename(to)
            self._owner = to / self._owner.name
            return
        to.mkdir(mode=0o700)
        # Write each journal into its file first, because the two do not move at the same moment.
        for database, connect in ((RunDir(folder).ledger, connect_writer), (folder / REVIEWS, connect_reviews)):
            if database.exists():
                with suppress(SetupError):
                    connect(database).close()
        for file in files:
            # The journals' own files may be gone, if the databases have their content.
            if not file.name.startswith("lock"):
                with suppress(FileNotFoundError):
                    file.rename(to / file.name)

    def close(self) -> None:
        """Release the lock. Can be called twice."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Change:
    """A part of the fingerprint that differs. None means that the part does not exist."""

    part: str
    old: JSON
    new: JSON

    def lines(self) -> Iterator[str]:
        """Yield the difference as lines for people."""
        old, new = _format_value(self.old), _format_value(self.new)
        if max(len(old), len(new)) <= SHORT_TEXT and "\\n" not in old + new:
            yield f"{self.part}: {old} -> {new}"
            return
        yield f"{self.part}:"
        before, now = _format_long(self.old).splitlines(), _format_long(self.new).splitlines()
        for line in difflib.unified_diff(before, now, "before", "now", lineterm="", n=1):
            yield f"    {line}"


def diff(old: Mapping[str, JSON], new: Mapping[str, JSON]) -> list[Change]:
    """Return the parts in which two fingerprints differ; nested parts have dotted names."""
    before, now = codec.flatten(old), codec.flatten(new)
    names = dict.fromkeys([*before, *now])
    return [Change(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file atomically: it is always either the old or the new one. Raises StoreError."""
    part = path.with_name(f"{path.name}.part")
    with disk_errors(path):
        part.write_bytes(data)
        replace_durably(part, path)


@contextmanager
def disk_errors(path: Path, what: str = "cannot write") -> Iterator[None]:
    """Raise StoreError with this file and `what` went wrong if the block raises OSError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {what}: {error.strerror or error}.") from error


def replace_durably(part: Path, path: Path) -> None:
    """Replace a file with a finished one: sync the new one first, then rename it."""
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    part.replace(path)
    with suppress(OSError):  # not every system can sync a folder
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_locked(folder: Path) -> bool:
    import filelock

    try:
        with filelock.FileLock(folder / "lock", blocking=False):
            return False
    except filelock.Timeout:
        return True


def _is_dead(pid: int) -> bool:
    """Whether the process is a zombie: in a container, nobody may ever fetch the exit code of a killed process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] == [b"Z"]


def _has_rows(path: Path) -> bool:
    if path.suffix != ".csv":
        return path.stat().st_size > 0
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        return next(rows, None) is not None and next(rows, None) is not None


def _read(path: Path) -> dict[str, JSON] | None:
    try:
        value = codec.loads_exact(path.read_bytes().decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: cannot be read: {error}. {_WAY_OUT}") from error
    if not isinstance(value, dict):
        raise SetupError(f"{path}: holds {type(value).__name__}, expected an object. {_WAY_OUT}")
    return value


_WAY_OUT = "Restore a copy of it, or start over with --fresh or another output folder."


def _in_use(folder: Path, owner: Path) -> str:
    who = "another process"
    with suppress(OSError, codec.JSONDecodeError, KeyError, TypeError):
        owner_facts = codec.loads(owner.read_bytes())
        who = f"process {owner_facts['pid']}, started at {owner_facts['started_at']},"
    return f"{folder}: {who} is at work in this run folder. Wait for it, stop it, or choose another folder."


def _format_value(value: JSON) -> str:
    return "(not set)" if value is None else codec.dumps(value).decode()


def _format_long(value: JSON) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else codec.pretty(value).decode()
