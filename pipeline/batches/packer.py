"""Fills parts: writes lines to a file, and remembers the records that they belong to."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import StoreError
from pipeline.limits import TokenBound
from pipeline.records import Record
from pipeline.store import BatchBook, Item, ItemState, Part, PartState

#: The API accepts 200 MB and 50,000 lines per file (OpenAI's documents, November 2026). This leaves a margin in bytes.
MOST_BYTES, MOST_LINES = 180 * 1024 * 1024, 50_000


NO_MORE = TokenBound(0, 0)


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a record, for a part. `tokens` estimates what it adds to the queue."""

    record: Record
    number: int
    digest: bytes
    tries: int
    tokens: int
    most: TokenBound | None


def line_name(part: int, place: int) -> str:
    """Return a line's custom_id. It is unique in the run, and far shorter than the 64 characters that are safe."""
    return f"p{part:06}-{place:06}"


def place_of(name: str, part: int) -> int | None:
    """Return the place of the line with this name; None if it does not belong to the part."""
    head, _, tail = name.partition("-")
    return int(tail) if head == f"p{part:06}" and tail.isdecimal() else None


class Packer:
    """Fills one part after another. The ledger does not yet contain the part that is being filled.

    A kill loses only that part's file. Its records are pending, and nothing was paid for them.
    """

    def __init__(
        self,
        folder: Path,
        book: BatchBook,
        endpoint: str,
        *,
        size: Callable[[], int],
        usd_of: Callable[[TokenBound], float | None],
        room: Callable[[float, int], bool],
        at_packed: Callable[[Part], None],
        model: str,
    ) -> None:
        self._folder = folder
        self._book = book
        self._endpoint = endpoint
        self._size = size
        self._usd_of = usd_of
        self._room = room
        self._at_packed = at_packed
        self._model = model
        self._lock = asyncio.Lock()
        # Mutable state: the file that is being filled, its number, its contents, and the requests of the part that is
        # being saved in the ledger.
        self._file: IO[bytes] | None = None
        self._number = 0
        self._hash = hashlib.sha256()
        self._items: list[Item] = []
        self._requests: set[bytes] = set()
        self._packing: set[bytes] = set()
        self._lines = self._bytes = self._tokens = self._most_tokens = 0
        self._most_usd: float | None = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be packed."""
        return not self._items

    def has(self, digest: bytes) -> bool:
        """Whether a record with this first request has a line in the part that is being filled or saved."""
        return digest in self._requests or digest in self._packing

    def follow(self, records: Iterable[Record], digest: bytes) -> None:
        """Add records whose request is that of another record in a part. They get no line."""
        self._items += [Item(record, 0, -1, 0, digest, ItemState.FOLLOWS) for record in records]

    async def add(self, line: BatchLine, pieces: Callable[[str], Iterable[bytes]]) -> None:
        """Add a line. `pieces` yields its bytes, given its name. A full part is packed."""
        async with self._lock:
            most = line.most or NO_MORE
            usd = self._usd_of(most)
            if self._lines and self._fits() and not self._fits(most, usd):
                await self._pack()
            place = self._lines
            try:
                await self._write(place, pieces)
            except OSError as error:
                raise StoreError(f"{self.path(self._number)}: cannot be written: {error}") from error
            self._items.append(Item(line.record, self._number, place, line.number, line.digest, tries=line.tries))
            self._requests.add(line.digest)
            self._lines += 1
            self._tokens += line.tokens
            self._most_tokens += most.prompt + most.output
            self._most_usd = None if usd is None or self._most_usd is None else self._most_usd + usd
            if self._lines >= self._size() or self._bytes >= MOST_BYTES:
                await self._pack()

    async def _write(self, place: int, pieces: Callable[[str], Iterable[bytes]]) -> None:
        if self._file is None:
            self._number = await self._book.next_number()
            self._folder.mkdir(exist_ok=True)
            self._file = self.path(self._number).open("wb")
        for piece in pieces(line_name(self._number, place)):
            self._file.write(piece)
            self._hash.update(piece)
            self._bytes += len(piece)

    def _fits(self, most: TokenBound = NO_MORE, usd: float | None = 0.0) -> bool:
        """Whether the part, with one more such line, fits the rest of the budget."""
        return self._room((self._most_usd or 0.0) + (usd or 0.0), self._most_tokens + most.prompt + most.output)

    async def flush(self) -> None:
        """Pack the current part."""
        async with self._lock:
            await self._pack()

    def path(self, number: int) -> Path:
        """Return the path of a part's input file."""
        return self._folder / f"{number:06}.jsonl"

    def close(self) -> None:
        """Discard a part that is not packed."""
        if self._file is not None:
            self._file.close()
            self.path(self._number).unlink(missing_ok=True)
        self._begin()

    async def _pack(self) -> None:
        if not self._items:
            return
        if self._file is not None:
            # From here on this object must not remove the file, because the ledger may refer to it.
            file, self._file = self._file, None
            try:
                await asyncio.to_thread(_sync, file)
            finally:
                file.close()
        part = Part(
            number=self._number,
            state=PartState.PACKED,
            lines=self._lines,
            bytes=self._bytes,
            sha256=self._hash.hexdigest(),
            endpoint=self._endpoint,
            tokens=self._tokens,
            most_usd=self._most_usd,
            most_tokens=self._most_tokens,
            packed_at=time.time(),
            books={"model": self._model},
        )
        # Lines that are added meanwhile belong to the next part.
        items, self._packing = self._items, self._requests
        self._begin()
        await self._book.pack(part, items)
        if part.lines:
            self._at_packed(part)
        self._packing = set()

    def _begin(self) -> None:
        self._file = None
        self._number = 0
        self._hash = hashlib.sha256()
        self._items, self._requests = [], set()
        self._lines = self._bytes = self._tokens = self._most_tokens = 0
        self._most_usd = 0.0


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
