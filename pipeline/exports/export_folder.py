"""Writes an export into its folder: replaces only its own files, and only with complete ones."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import SetupError, StoreError
from pipeline.exports.splits import FILE
from pipeline.targets import is_run

#: The manifest of an export. Not `manifest.json`, which marks a run folder.
MANIFEST = "export.json"
#: The prefix of the folder in which the files are written before they replace the old ones.
_STAGING = ".export-"
_DATA = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".db", ".sqlite")
_WAY_OUT = "Nothing was written: move it away, or name another folder with --to"
#: An address without its ://. A Windows drive has one letter.
_ADDRESS = re.compile(r"[\w+.-]{2,}:")


def folder_of(to: str | Path) -> Path:
    """Return the absolute path of the folder. Raises SetupError for what looks like an address."""
    if isinstance(to, str) and (not to.strip() or _ADDRESS.match(to)):
        # The message does not repeat it, because it may contain a password.
        raise SetupError(
            "--to: expected a folder, or a database URL, like sqlite:///labels.db or "
            "postgresql+psycopg://user@host/name"
        )
    return Path(to).absolute()


class ExportFolder:
    """A folder of exported files. Raises SetupError if it cannot be one, or has files that no export wrote."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, [*names, FILE]
        if path.is_file() or (path.suffix in _DATA and not path.exists()):
            raise SetupError(f"--to {path}: expected a folder, in which train, val and test are written, or a URL")
        if is_run(path):
            raise SetupError(f"--to {path}: is a run folder. Choose another folder for the export")
        #: The digests that each of our files may have; None for any.
        self._own_digests = self._read()
        for name in self._names:
            if os.path.lexists(path / name) and not self._is_own(name):
                why = (
                    "was changed since it was exported" if name in self._own_digests else "was not written by labelpipe"
                )
                raise SetupError(f"{path / name}: {why}. {_WAY_OUT}")

    def _read(self) -> dict[str, list[str] | None]:
        path = self.path / MANIFEST
        if not os.path.lexists(path):
            return {}
        with suppress(OSError, ValueError):
            manifest = codec.loads(path.read_bytes())
            if isinstance(manifest, dict) and isinstance(manifest.get("digests"), dict) and "labelpipe" in manifest:
                digests: dict[str, list[str] | None] = manifest["digests"]
                return digests
        raise SetupError(f"{path}: was not written by labelpipe. {_WAY_OUT}")

    def _is_own(self, name: str) -> bool:
        path, digests = self.path / name, self._own_digests.get(name, [])
        if path.is_symlink() or not path.is_file():
            return False
        return digests is None or digest_of(path) in digests

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Open a temporary folder for the files. Raises StoreError if the disk fails."""
        is_new = not self.path.exists()
        part = self.path / f"{_STAGING}{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            part.mkdir()
            yield part
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot write: {error.strerror or error}. The existing files are unchanged."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if is_new:
                with suppress(OSError):  # it is not empty
                    self.path.rmdir()

    def _remove_stale(self) -> None:
        """Remove the temporary folders of exports that were killed."""
        for left in self.path.glob(f"{_STAGING}*"):
            number = left.name.removeprefix(_STAGING)
            if number.isdecimal() and (int(number) == os.getpid() or not _is_alive(int(number))):
                shutil.rmtree(left, ignore_errors=True)

    def commit(self, part: Path, facts: Mapping[str, Any]) -> list[str]:
        """Move the files of `part` into place; return our old files that could not be removed. Raises OSError.

        The manifest is written first, with the digests of the old and the new files: after a kill in between, both are
        recognized as ours.
        """
        new: dict[str, list[str] | None] = {path.name: [digest_of(path)] for path in sorted(part.iterdir())}
        new[FILE] = None
        both = {name: [*(self._own_digests.get(name) or ()), *(digests or ())] for name, digests in new.items()}
        self._write_manifest(facts, {**self._own_digests, **both, FILE: None})
        for name in new.keys() - {FILE}:
            (part / name).replace(self.path / name)
        old = [name for name in self._own_digests if name not in new and os.path.lexists(self.path / name)]
        for name in old:
            if self._is_own(name):
                (self.path / name).unlink()
        self._write_manifest(facts, new)
        return [name for name in old if os.path.lexists(self.path / name)]

    def _write_manifest(self, facts: Mapping[str, Any], digests: Mapping[str, Any]) -> None:
        part = self.path / f"{MANIFEST}.part"
        part.write_bytes(codec.pretty({**facts, "digests": digests}))
        part.replace(self.path / MANIFEST)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # pragma: no cover - there `os.kill(pid, 0)` is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
