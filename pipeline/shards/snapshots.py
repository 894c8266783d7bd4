"""Saves snapshots of shards at an address (`scale.folder`), for shards whose own disk may be lost.

Each shard has snapshots such as `03/000002-000007.zip`. A note of the same name follows when the snapshot is complete,
so a kill in between leaves the previous one. The first number is the fence. Whoever takes the shard over gets a greater
one, so nothing that the previous process still writes is taken for the last snapshot.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import LabelpipeError, StoreError
from pipeline.limits import PICO_PER_USD
from pipeline.readers import describe_remote_error, open_filesystem
from pipeline.store import RunDir, pack_snapshot, record_spent, unpack_snapshot, write_whole

#: Tries to fetch a snapshot. One that is removed meanwhile has a successor.
_TRIES = 5
#: The name of the snapshot of the ledger from before there were shards.
_BASE = "base"


class FencedError(LabelpipeError):
    """Another process owns this shard now."""

    code = "fenced"


@dataclass(frozen=True, slots=True)
class ShardSnapshot:
    """A snapshot of a shard. `has_ledger` is false if the shard was taken over before it had a ledger.

    `is_over`: no process of the shard is running anymore.
    """

    fence: int
    number: int
    has_ledger: bool
    is_over: bool

    @property
    def name(self) -> str:
        """The name of its files, without the extension."""
        return f"{self.fence:06}-{self.number:06}"


class SnapshotStore:
    """The snapshots of a run's shards at an address. Every method blocks, and raises StoreError."""

    def __init__(self, address: str, dealing: str) -> None:
        self._system, place = open_filesystem(address, "scale.folder")
        self._root = f"{place.rstrip('/')}/{dealing}"
        self._description = f"scale.folder = {address}"

    def last(self, shard: str) -> ShardSnapshot | None:
        """Return the last complete snapshot of a shard; None if there is none."""
        with self._store_errors("cannot be read"):
            for name in sorted(self._names(shard, ".json"), reverse=True):
                # Skip a note that is incomplete or was removed meanwhile: there is another one.
                with suppress(ValueError, KeyError, TypeError, FileNotFoundError):
                    stored: Mapping[str, Any] = codec.loads(self._system.cat_file(f"{self._root}/{shard}/{name}"))
                    return ShardSnapshot(*(stored[field] for field in ("fence", "number", "has_ledger", "is_over")))
        return None

    def refuse_older(self, shard: str, fence: int) -> None:
        """Raise FencedError if a process with a greater fence has taken the shard over."""
        with self._store_errors("cannot be read"):
            newest = max((int(name[:6]) for name in self._names(shard, ".json")), default=0)
        if newest > fence:
            raise FencedError(
                f"shard {shard} was taken over by another process (number {newest}, this one is number {fence}), as "
                "this one was thought lost. What it has answered since its last sync is asked again there. "
                "Let the other one continue"
            )

    def save(self, shard: str, snapshot: ShardSnapshot, archive: Path) -> None:
        """Upload a snapshot, then its note, and remove older ones."""
        folder = f"{self._root}/{shard}"
        with self._store_errors("cannot be written"):
            self._system.makedirs(folder, exist_ok=True)
            if snapshot.has_ledger:
                self._system.put_file(str(archive), f"{folder}/{snapshot.name}.zip")
            self._system.pipe_file(f"{folder}/{snapshot.name}.json", codec.dumps(asdict(snapshot)))
            old = [name for name in self._names(shard) if name.partition(".")[0] < snapshot.name]
            for name in sorted(old, key=lambda name: name.endswith(".zip")):  # notes first
                with suppress(FileNotFoundError):
                    self._system.rm_file(f"{folder}/{name}")

    def fetch(self, shard: str, archive: Path) -> ShardSnapshot | None:
        """Return the last snapshot of a shard. Its ledger, if there is one, is downloaded to `archive`."""
        for _ in range(_TRIES):
            snapshot = self.last(shard)
            with self._store_errors("cannot be read"), suppress(FileNotFoundError):
                if snapshot is not None and snapshot.has_ledger:
                    self._system.get_file(f"{self._root}/{shard}/{snapshot.name}.zip", str(archive))
                return snapshot
        raise StoreError(
            f"{self._description}: the states of shard {shard} go while they are read. Run the command again."
        )

    def clear(self) -> None:
        """Remove everything that belongs to the run."""
        with self._store_errors("cannot be removed"), suppress(FileNotFoundError):
            self._system.rm(self._root, recursive=True)

    def _names(self, shard: str, ending: str = "") -> list[str]:
        self._system.invalidate_cache()
        with suppress(FileNotFoundError):
            names = (path.rpartition("/")[2] for path in self._system.ls(f"{self._root}/{shard}", detail=False))
            return [name for name in names if name[:6].isdigit() and name.endswith(ending)]
        return []

    @contextmanager
    def _store_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except LabelpipeError:
            raise
        except Exception as error:  # any file system may raise anything
            raise StoreError(f"{self._description}: {what}: {describe_remote_error(error)}") from error


class SnapshotSync:
    """Saves snapshots of a shard's run folder on this disk. Every method blocks, and raises StoreError."""

    def __init__(self, snapshots: SnapshotStore, folder: Path, dealing: str, fence: int) -> None:
        self._store, self._folder, self._dealing, self._fence = snapshots, folder, dealing, fence
        self._archive = folder.with_name(f"{folder.name}.state")
        # Mutable state: the number of snapshots saved, and the state of the files at the last one.
        self._number = 0
        self._last_files: list[tuple[str, int, int]] | None = None

    def resume(self, spent: tuple[int, int]) -> bool:
        """Restore the last snapshot. Returns whether it did. `spent` is what the shard may have spent (see `Job`)."""
        copied = restore(self._store, self._folder, self._dealing)
        ledger = RunDir(self._folder).ledger
        if any(spent) and (copied or not ledger.exists()):
            # The ledger does not contain what the lost process has paid for.
            record_spent(ledger, spent[0] / PICO_PER_USD, spent[1])
        _write_note(self._folder, self._dealing, fence=self._fence)
        self.save()
        return copied

    def save(self, *, is_over: bool = False) -> None:
        """Save a snapshot if the ledger has changed. Raises FencedError if another process owns the shard."""
        self._store.refuse_older(self._folder.name, self._fence)
        ledger = RunDir(self._folder).ledger
        files = [(one.name, one.stat()) for one in (ledger, ledger.with_name("ledger.db-wal")) if one.exists()]
        # Empty files are ignored, because a reader creates an empty journal.
        state = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files if stat.st_size]
        if state == self._last_files and not is_over:
            return
        has_ledger = ledger.exists()
        try:
            if has_ledger:
                pack_snapshot(ledger, self._archive)
            snapshot = ShardSnapshot(self._fence, self._number + 1, has_ledger, is_over)
            self._store.save(self._folder.name, snapshot, self._archive)
        finally:
            self._archive.unlink(missing_ok=True)
        self._number, self._last_files = snapshot.number, state


def save_base(address: str, dealing: str, base: Path) -> None:
    """Save the ledger from before there were shards, which each shard needs."""
    archive = base.with_name(f"{base.name}.state")
    try:
        pack_snapshot(base, archive)
        SnapshotStore(address, dealing).save(_BASE, ShardSnapshot(0, 1, has_ledger=True, is_over=True), archive)
    finally:
        archive.unlink(missing_ok=True)


def fetch_base(snapshots: SnapshotStore, folder: Path, dealing: str) -> Path:
    """Fetch the ledger from before there were shards into this folder."""
    restore(snapshots, folder, dealing, _BASE)
    return RunDir(folder).ledger


def restore(snapshots: SnapshotStore, folder: Path, dealing: str, shard: str = "") -> bool:
    """Restore the last snapshot of a shard in this folder, which has the shard's name. Returns whether it did.

    If the last process of the shard ran here, its folder knows more and is kept. An older folder is moved aside.
    """
    archive, shard = folder.with_name(f"{folder.name}.state"), shard or folder.name
    snapshot, (fence, copied) = snapshots.last(shard), _read_note(folder, dealing)
    if fence is not None and (snapshot is None or fence >= snapshot.fence):
        return False
    if copied and snapshot is not None and copied == snapshot.name:
        return True
    _clear_folder(folder, aside=not copied)
    try:
        snapshot = snapshots.fetch(shard, archive)
        if snapshot is None or not snapshot.has_ledger:
            return False
        unpack_snapshot(archive, folder)
        _write_note(folder, dealing, copied=snapshot.name)
    finally:
        archive.unlink(missing_ok=True)
    return True


def _note_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.note.json")


def _write_note(folder: Path, dealing: str, *, fence: int | None = None, copied: str = "") -> None:
    write_whole(_note_path(folder), codec.pretty({"dealing": dealing, "fence": fence, "copied": copied}))


def _read_note(folder: Path, dealing: str) -> tuple[int | None, str]:
    """Return the fence of the process that worked in the folder, or the snapshot that it is a copy of, or neither."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = codec.loads(_note_path(folder).read_bytes())
        if stored["dealing"] == dealing and RunDir(folder).ledger.exists():
            return stored["fence"], str(stored["copied"])
    return None, ""


def _clear_folder(folder: Path, *, aside: bool) -> None:
    """Move the run out of the folder, or remove it if it is a copy."""
    files = [file for file in RunDir(folder).files() if not file.name.startswith("lock")]
    number = 1
    while (place := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    if files:
        place.mkdir(mode=0o700)
    for file in files:
        file.replace(place / file.name)
    if files and not aside:
        shutil.rmtree(place)
