"""Reads remote files (https, s3, gs, and whatever else fsspec supports) block by block."""

import io
import re
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.readers.arrow import count_rows, parquet
from pipeline.readers.background import spool_to_disk
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.readers.rows import Blocks
from pipeline.readers.source import (
    FILE_FORMATS,
    Source,
    Stamp,
    compression_suffix,
    detect_format,
    natural_key,
)
from pipeline.threads import in_daemon

#: The size of one request to the server.
REQUEST_BYTES = 4 * 1024 * 1024
#: Seconds to wait before each retry of a request. After the last one, the source cannot be read.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: The extras of protocols that need more than fsspec itself.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "remote", "https": "remote"}
#: The protocols' names for the mark of a file's content or age.
_SIGNS = (
    "ETag", "etag", "md5Hash", "md5", "crc32c", "Content-MD5", "LastModified", "Last-Modified", "updated", "mtime",
)  # fmt: skip
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(url: str) -> bool:
    """Whether it is an address, not a path."""
    return _ADDRESS.match(url) is not None


@dataclass(frozen=True, slots=True)
class _RemoteFile:
    """One remote file: its file system, its place there, and the metadata.

    `name` is the address without possible secrets. `place` may contain one, so it must not be displayed.
    """

    filesystem: Any = field(repr=False)
    place: str = field(repr=False)
    name: str
    info: Mapping[str, Any] = field(repr=False)

    @property
    def size_bytes(self) -> int | None:
        size = self.info.get("size")
        return size if isinstance(size, int) else None

    @property
    def in_parts(self) -> bool:
        """Whether the server can send any part of it."""
        return self.size_bytes is not None and self.info.get("partial", True) is not False

    @property
    def identity(self) -> str:
        """A digest that is the same for every spelling of the address."""
        return codec.digest128(self.filesystem.unstrip_protocol(self.place).encode()).hex()

    def open(self) -> Any:
        """Open it as a file that can seek."""
        return self.filesystem.open(self.place, "rb", block_size=REQUEST_BYTES, cache_type="readahead")

    def stamp(self) -> Stamp | None:
        """Return its size and marks; None if there is no mark, because a size alone shows too little."""
        signs = {name: str(self.info[name]) for name in _SIGNS if self.info.get(name)}
        return {"name": self.name, "size_bytes": self.size_bytes, **signs} if signs else None


def remote_sources(url: str, format_name: str, *, secret: bool = False) -> Iterator[Source]:
    """Yield the file, or the files of a glob, at an address. Raises InputError and MissingExtraError."""
    if format_name == "dataset" or format_name in FILE_FORMATS:
        raise InputError(
            f'input.path: format = "{format_name}" is for local folders; {_display_url(url, secret)!r} is not one'
        )
    restamp = partial(_stamps, url, secret)
    for remote in _find_files(url, secret):
        kind = detect_format(remote.name.partition("?")[0], format_name, partial(_head, remote))
        if kind == "parquet" and (not remote.in_parts or compression_suffix(remote.name)):
            raise InputError(
                f"input.path: {remote.name!r}: Parquet is read in parts, which this server cannot send; "
                "download it first"
            )
        stamp, identity = remote.stamp, remote.identity
        source = Source(
            remote.name, None, kind, remote.size_bytes, identity=identity, read_stamp=stamp, restamp=restamp
        )
        if kind == "parquet":
            open_file = partial(_RetryingFile, remote)
            rows = partial(parquet, open_file, remote.size_bytes or 0)
            yield replace(source, rows=rows, read_count=partial(count_rows, open_file, remote.name))
        else:
            yield replace(source, blocks=partial(_blocks, remote))


def _stamps(url: str, secret: bool) -> dict[str, Stamp | None]:
    """Return the current stamps of the files, by name."""
    return {remote.name: remote.stamp() for remote in _find_files(url, secret)}


def _display_url(url: str, secret: bool) -> str:
    """Return the address for display: without a login and, if it is secret, without a query or fragment."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    without_login = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return re.split(r"[?#]", without_login)[0] if secret else without_login


def _find_files(url: str, secret: bool) -> list[_RemoteFile]:
    filesystem, place = _open(url, secret)
    name = _display_url(url, secret)
    # In a web address, a question mark begins the query.
    magic = "*" if url.lower().startswith("http") else "*?["
    try:
        filesystem.invalidate_cache()
        if not any(sign in place for sign in magic):
            return [_RemoteFile(filesystem, place, name, filesystem.info(place))]
        infos = filesystem.glob(place, detail=True)
    except Exception as error:  # any file system may raise anything
        raise InputError(f"input.path: {name!r} cannot be read: {describe_remote_error(error, secret)}") from None
    names = {
        place: _display_url(filesystem.unstrip_protocol(place), secret)
        for place, info in infos.items()
        if info.get("type") != "directory"
    }
    if not names:
        raise InputError(f"input.path: no file matches {name!r}")
    places = sorted(names, key=lambda place: natural_key(names[place]))
    return [_RemoteFile(filesystem, place, names[place], infos[place]) for place in places]


def _open(url: str, secret: bool) -> tuple[Any, str]:
    if url.lower().startswith("http://") and urlsplit(url).hostname not in _LOOPBACK:
        raise InputError(f"input.path: {_display_url(url, secret)!r}: http is read from this machine only; use https")
    return open_filesystem(url, "input.path", secret=secret)


def open_filesystem(url: str, key: str, *, secret: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the place there. Raises InputError, MissingExtraError."""
    scheme = url.partition("://")[0].lower()
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError(f"{key}: {scheme}://", "remote") from None
    try:
        return fsspec.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        if scheme in _EXTRAS:
            raise MissingExtraError(f"{key}: {scheme}://", _EXTRAS[scheme]) from None
        raise InputError(f"{key}: {scheme}://: {error}") from None
    except Exception as error:  # any file system may raise anything
        raise InputError(f"{key}: {_display_url(url, secret)!r}: {describe_remote_error(error, secret)}") from None


def describe_remote_error(error: Exception, secret: bool = False) -> str:
    """Return what went wrong and what to do. Secret: without the error's own text, which may repeat the address."""
    cause = _root_cause(error)
    status = getattr(cause, "status", None)
    if isinstance(cause, FileNotFoundError) or status in (404, 410):
        return "no such file"
    if isinstance(status, int) and status in _STATUSES:
        return f"status {status}: {_STATUSES[status]}"
    for kind, reason in _REASONS.items():
        if isinstance(cause, kind):
            return reason
    reason = "" if secret else " ".join(str(cause).split())[:300]
    return ": ".join(part for part in (type(cause).__name__, str(status or ""), reason) if part)


_STATUSES = {
    401: "the server wants a login: name an address that has it in input.url_env",
    403: "the server does not allow it: is a signature or a key missing, or out of date?",
    429: "the server has had too many requests: try again later",
}
#: Standard library errors beneath those of other libraries -> their message to the user. The first match counts.
_REASONS: Mapping[type[BaseException], str] = {
    ssl.SSLCertVerificationError: "the server's certificate is not trusted: check the host, the date and SSL_CERT_FILE",
    ssl.SSLError: "no TLS could be agreed on: does the server speak https on this port?",
    socket.gaierror: "the host's name is not known: check its spelling and the network",
    ConnectionRefusedError: "nobody listens there: the connection was refused; check host and port",
    TimeoutError: "the server did not answer in time",
}


def _root_cause(error: BaseException) -> BaseException:
    """Return an error's cause: fsspec calls anything FileNotFoundError, and aiohttp wraps the errors of sockets."""
    while (under := getattr(error, "os_error", None) or error.__cause__) is not None and (
        isinstance(error, FileNotFoundError) or isinstance(under, tuple(_REASONS))
    ):
        error = under
    return error


def _is_final(error: Exception) -> bool:
    """Whether a retry would be pointless."""
    cause = _root_cause(error)
    return isinstance(cause, FileNotFoundError | PermissionError | ssl.SSLError) or (
        getattr(cause, "status", None) in (401, 403, 404, 410)
    )


def _head(remote: _RemoteFile) -> bytes:
    try:
        with remote.filesystem.open(remote.place, "rb", **({} if remote.in_parts else {"block_size": 0})) as file:
            return bytes(file.read(LOOK_BYTES))
    except Exception as error:  # any file system may raise anything
        raise InputError(f"input.path: {remote.name!r} cannot be read: {describe_remote_error(error, True)}") from None


async def _blocks(remote: _RemoteFile, chunk_bytes: int) -> Blocks:
    """Yield the bytes of a file. If the server cannot send parts of it, they go through a temporary file."""
    at = 0
    if remote.in_parts:
        file = await _retry_in_thread(remote.open, remote)
        try:
            while at < (remote.size_bytes or 0):
                block = await _retry_in_thread(partial(_read, file, at, chunk_bytes), remote)
                if not block:
                    break
                at += len(block)
                yield block
        except _NoPartsError:
            pass
        else:
            return
    async with aclosing(_spool_rest(remote, at, chunk_bytes)) as rest:
        async for block in rest:
            yield block


async def _spool_rest(remote: _RemoteFile, at: int, chunk_bytes: int) -> Blocks:
    """Yield everything after the first `at` bytes, from a server that sends only whole files."""
    async with aclosing(spool_to_disk(partial(_download, remote), chunk_bytes=chunk_bytes)) as blocks:
        async for block in blocks:
            if at < len(block):
                yield block[at:]
            at = max(0, at - len(block))


class _NoPartsError(Exception):
    """The server does not send parts of the file."""


def _read(file: Any, at: int, size: int) -> bytes:
    file.seek(at)
    try:
        return bytes(file.read(size))
    except ValueError as error:  # how fsspec reports that a server ignored a range
        raise _NoPartsError from error


async def _retry_in_thread(call: Callable[[], Any], remote: _RemoteFile) -> Any:
    """Return the result of `_retry`, run in a daemon thread."""
    return await in_daemon(lambda: _retry(call, remote))


def _retry(call: Callable[[], Any], remote: _RemoteFile) -> Any:
    """Return the result of `call`. Retry it a few times, because networks fail during long runs."""
    for wait_s in (*WAITS_S, None):
        try:
            return call()
        except _NoPartsError:
            raise
        except Exception as error:  # any file system may raise anything
            if wait_s is None or _is_final(error):
                raise InputError(f"{remote.name}: cannot be read: {describe_remote_error(error, True)}") from None
            time.sleep(wait_s)
    raise AssertionError("the last wait is None")


class _RetryingFile(io.RawIOBase):
    """A remote file for pyarrow, which reads it in a thread. Network errors do not count as damage of the file."""

    def __init__(self, remote: _RemoteFile) -> None:
        self._remote = remote
        self._file = self._retry(remote.open)

    def _retry(self, call: Callable[[], Any]) -> Any:
        try:
            return _retry(call, self._remote)
        except _NoPartsError:
            reason = "Parquet is read in parts, which the server does not give; fetch it first"
            raise InputError(f"{self._remote.name}: {reason}") from None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        at = self.tell()
        wanted = (self._remote.size_bytes or 0) - at if size < 0 else size
        return self._retry(partial(_read, self._file, at, wanted))  # type: ignore[no-any-return]

    def seek(self, at: int, whence: int = 0) -> int:
        """Move to a position."""
        return int(self._file.seek(at, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _download(remote: _RemoteFile) -> Generator[bytes, None, None]:
    try:
        with remote.filesystem.open(remote.place, "rb", block_size=0) as file:
            while block := file.read(1024 * 1024):
                yield block
    except Exception as error:  # any file system may raise anything
        raise InputError(f"{remote.name}: cannot be read: {describe_remote_error(error, True)}") from None
