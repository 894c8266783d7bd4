"""Sends orders to a running session and returns its answers, as lines in two files of the run folder.

It uses no sockets, so it also works over ssh and on NFS. An order is one line with its own id, and so is its answer.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import codec
from pipeline.errors import SetupError
from pipeline.records import JSON

log = logging.getLogger("labelpipe")

ORDERS, ANSWERS = "control.jsonl", "control.answers.jsonl"
VERBS = ("pause", "resume", "drain", "set")
#: Bytes of orders that are read at once, and so the longest order.
BLOCK_BYTES = 64 * 1024
POLL_S = 0.1
NO_ANSWER = "the run did not answer; is it running?"


# -- from the other terminal ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentOrder:
    """An order that was sent. Its answer will come after the first `answers_from` bytes of the answers."""

    id: str
    run_dir: Path
    verb: str
    answers_from: int


@dataclass(frozen=True, slots=True)
class OrderReply:
    """The run's answer to an order."""

    ok: bool
    text: str


def send(run_dir: Path, verb: str, key: str | None = None, value: JSON = None) -> SentOrder:
    """Send an order to the run in `run_dir`. `key` and `value` are for "set" only.

    Raises SetupError if there is no run, the order is invalid, or the folder cannot be written.
    """
    if mistake := _mistake(verb, key):
        raise SetupError(mistake)
    if not (run_dir / "manifest.json").is_file():
        raise SetupError(f"{run_dir}: there is no run here (no manifest.json)")
    # The size is read before the order is written, so the answer can only come after it.
    ticket = SentOrder(secrets.token_hex(8), run_dir, verb, _size(run_dir / ANSWERS))
    order = {"id": ticket.id, "at": time.time(), "verb": verb}
    try:
        _append(run_dir / ORDERS, order if key is None else {**order, "key": key, "value": value})
    except OSError as error:
        raise SetupError(
            f"{run_dir / ORDERS}: the order cannot be written: {error.strerror or error}. "
            "Use an account that may write to the run folder."
        ) from error
    return ticket


def await_answer(
    ticket: SentOrder,
    timeout_s: float = 5.0,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> OrderReply | None:
    """Return the run's answer; None if there is none within `timeout_s` (then report `NO_ANSWER`).

    Blocks, so it is for the command line, not for an event loop.
    """
    until = clock() + timeout_s
    while True:
        # Opened each time, because NFS shows new data only when a file is opened.
        for answer in _objects(_read_from(ticket.run_dir / ANSWERS, ticket.answers_from)):
            if answer.get("id") == ticket.id:
                return OrderReply(answer.get("ok") is True, str(answer.get("text", "")))
        if clock() >= until:
            return None
        sleep(POLL_S)


# -- in the run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """An order from another terminal. `key` and `value` are None except for "set". A value may be a text like "16"."""

    id: str
    verb: str
    key: str | None = None
    value: JSON = None


class Inbox:
    """The orders that arrive while this session runs. Earlier ones are ignored."""

    def __init__(self, run_dir: Path) -> None:
        self._orders, self._answers = run_dir / ORDERS, run_dir / ANSWERS
        # Mutable state: which file was read, how far, and whether the next bytes continue a line that began before.
        stat = _stat(self._orders)
        self._inode: int | None = None if stat is None else stat.st_ino
        self._at = 0 if stat is None else stat.st_size
        self._in_line = not _ends_with_newline(self._orders)

    def read_new(self) -> list[Order]:
        """Return the orders since the last call, in order. An incomplete line waits for its end.

        Invalid orders are answered here and not returned.
        """
        try:
            return [order for line in self._new_lines() if (order := self._order(line)) is not None]
        except OSError as error:
            log.warning("orders cannot be read", extra={"facts": {"problem": error.strerror or str(error)}})
            return []

    def answer(self, order: Order, ok: bool, text: str) -> None:
        """Answer the sender, and log the order. Never raises."""
        self._reply(order.id, ok, text)
        facts = {"verb": order.verb, "key": order.key, "ok": ok, "text": text}
        log.info("order", extra={"facts": facts})

    def _new_lines(self) -> Iterator[bytes]:
        stat = _stat(self._orders)
        if stat is None:
            return
        if stat.st_ino != self._inode or stat.st_size < self._at:
            # The file was replaced, so all of it is new.
            self._inode, self._at, self._in_line = stat.st_ino, 0, False
        if stat.st_size == self._at:
            return
        while block := _read_from(self._orders, self._at, BLOCK_BYTES):
            whole = block[: block.rfind(b"\n") + 1]
            if not whole and len(block) < BLOCK_BYTES:
                return
            # An unfinished line that is longer than any order is not an order, and is skipped.
            self._at += len(whole or block)
            skip, self._in_line = self._in_line, not whole
            yield from whole.splitlines()[skip:]

    def _order(self, line: bytes) -> Order | None:
        """Parse the order in a line. Return None for an invalid one, and answer its sender if it names one."""
        order_facts = next(_objects(line), None)
        if order_facts is None:
            if line.strip():
                log.warning("order not understood", extra={"facts": {"bytes": len(line)}})
            return None
        name, verb, key = (order_facts.get(part) for part in ("id", "verb", "key"))
        order = Order(str(name), str(verb), None if key is None else str(key), order_facts.get("value"))
        if mistake := _mistake(order.verb, order.key):
            self.answer(order, False, mistake)
            return None
        return order

    def _reply(self, name: str, ok: bool, text: str) -> None:
        try:
            _append(self._answers, {"id": name, "at": time.time(), "ok": ok, "text": text})
        except OSError as error:
            log.warning("order cannot be answered", extra={"facts": {"problem": error.strerror or str(error)}})


def _mistake(verb: str, key: str | None) -> str:
    """Return what is wrong with an order; empty if nothing is."""
    if verb not in VERBS:
        return f"unknown order {verb[:40]!r}; known are {', '.join(VERBS)}"
    if verb == "set" and not key:
        return "set needs a key and a value, like limits.concurrency=16"
    if verb != "set" and key is not None:
        return f"{verb} takes no key; to change a setting: set {key}=..."
    return ""


# -- the files -----------------------------------------------------------------------------------------------------


def _append(path: Path, line: Mapping[str, JSON]) -> None:
    """Append one line in one write, so that lines of two senders do not mix. Raises OSError."""
    # An unfinished line of another sender is ended first, so that it does not swallow this one.
    data = (b"" if _ends_with_newline(path) else b"\n") + codec.dumps(line) + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        if os.write(handle, data) < len(data):
            raise OSError("the disk is full")
    finally:
        os.close(handle)


def _ends_with_newline(path: Path) -> bool:
    """Whether the file ends with a newline, is empty, or is missing."""
    size = _size(path)
    return size == 0 or _read_from(path, size - 1) == b"\n"


def _read_from(path: Path, at: int, limit: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(limit)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    stat = _stat(path)
    return 0 if stat is None else stat.st_size


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _objects(data: bytes) -> Iterator[dict[str, JSON]]:
    """Yield the objects of JSON lines. Skip lines that are incomplete or not objects."""
    for line in data.splitlines():
        try:
            value = codec.loads(line)
        except codec.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield value
