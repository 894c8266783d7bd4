"""Rehearsal endpoints in a process of their own, as their clients and their auditors see them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.engine.health import CHECK_MESSAGES

HERE = Path(__file__).parent
#: Longer than anything takes on a machine that is ten times too busy; what takes longer hangs.
PATIENCE_S = 300.0
#: What a run sends to see whether a silent server is there.
_A_WORD = CHECK_MESSAGES[0]["content"]


def wait_until(holds: Callable[[], bool]) -> None:
    """Look until it holds; fails after a time that no busy machine needs."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Line:
    """One ended call in an endpoint's books. `at_s` is seconds from the endpoint's first call to this call's end."""

    at_s: float
    key: str
    what: str
    status: int
    label: Mapping[str, Any] | None
    lost: bool


class Endpoint:
    """An endpoint of `Endpoints`, as a client and as an auditor see it."""

    def __init__(self, port: int, books_path: Path) -> None:
        self.port = port
        self.books_path = books_path
        self.root_url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.root_url}/v1"

    def calls(self) -> int:
        """How many calls have come in."""
        return int(self._get("/health")["calls"])

    def in_flight(self) -> int:
        """How many calls are being answered."""
        return int(self._get("/health")["in_flight"])

    def totals(self) -> dict[str, Any]:
        """The counts over all calls of this server."""
        totals: dict[str, Any] = self._get("/books")["totals"]
        return totals

    def lines(self, from_byte: int = 0) -> list[Line]:
        """Every ended call that was about a record, of all servers that wrote this book."""
        with self.books_path.open("rb") as file:
            file.seek(from_byte)
            ended = [json.loads(line) for line in file]
        return [_line(call) for call in ended if not (call["record"] or "").endswith(_A_WORD)]

    def asked(self) -> dict[str, int]:
        """Calls by record key."""
        counts: dict[str, int] = {}
        for line in self.lines():
            counts[line.key] = counts.get(line.key, 0) + 1
        return counts

    def given(self) -> dict[str, list[Mapping[str, Any] | None]]:
        """The good answers by record key."""
        labels: dict[str, list[Mapping[str, Any] | None]] = {}
        for line in self.lines():
            if line.what == "answered":
                labels.setdefault(line.key, []).append(line.label)
        return labels

    def wait_for_calls(self, number: int) -> None:
        """Return once so many calls have come in."""
        wait_until(lambda: self.calls() >= number)

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.root_url + path, timeout=10) as answer:
            value: dict[str, Any] = json.loads(answer.read())
        return value


def _line(found: Mapping[str, Any]) -> Line:
    # The endpoint names a record "HASH the first words of its prompt"; the prompts here begin with the key.
    words = (found["record"] or "").split(" ")
    return Line(
        at_s=found["at_s"],
        key=words[1] if len(words) > 1 else "",
        what=found["what"],
        status=found["status"],
        label=json.loads(found["text"]) if found["text"] else None,
        lost=found["lost"],
    )


class Endpoints:
    """A process that serves as many rehearsal endpoints as are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._books = itertools.count(1)
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "endpoints.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def open(self, *, books: Path | None = None, port: int = 0, **options: Any) -> Endpoint:
        """A new endpoint; with `books` it goes on writing those."""
        path = books or self._folder / f"books{next(self._books)}.jsonl"
        told = self._tell({"open": {"latency_ms": 5.0, "port": port, "books_path": str(path), **options}})
        return Endpoint(told["port"], path)

    def close(self, endpoint: Endpoint) -> None:
        """Stop serving one."""
        self._tell({"close": endpoint.port})

    def again(self, endpoint: Endpoint, **options: Any) -> Endpoint:
        """The endpoint with other options, at the same address and with the same books."""
        self.close(endpoint)
        return self.open(books=endpoint.books_path, port=endpoint.port, **options)

    def _tell(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> Endpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=PATIENCE_S)
