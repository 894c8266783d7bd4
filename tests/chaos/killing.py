"""Commands that are killed at random moments, and what is on the disk and in the endpoint's books right after."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from end_to_end.stage import PATIENCE_S, Endpoint, Process, Project, Row, wait_until

from pipeline import Status
from pipeline.errors import SetupError
from pipeline.store import Ledger

#: Calls that go wrong along the way, so that kills meet retries and repairs too.
FAULTS = {"503": 0.02, "429": 0.01, "reset": 0.01, "bad_label": 0.02, "bad_json": 0.01}
CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Kill:
    """What was there right after a process had been ended.

    `held` are the labels in the ledger by key, `paid` the keys that the endpoint has answered since the kill before,
    `books_bytes` how long its books were; `csv_keys` are those of the whole rows of labels.csv.
    """

    how: str
    code: int
    held: Mapping[str, Mapping[str, Any] | None]
    paid: frozenset[str]
    books_bytes: int
    csv_keys: Sequence[str]

    @property
    def wasted(self) -> frozenset[str]:
        """Paid for, and not in the ledger: what the kill has cost."""
        return self.paid - {key for key, label in self.held.items() if label is not None}


@dataclass
class Scene:
    """A project whose commands are killed. The seed is in every message: the same seed, the same moments."""

    user: Project
    endpoint: Endpoint
    rows: Sequence[Row]
    seed: int
    #: what one kill may cost: what is on the wire, or answered and not yet committed
    most_wasted: int = CONCURRENCY
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self._first_byte = self._books_bytes()

    def strike(self, *args: str, most_calls: int, number: signal.Signals = signal.SIGKILL) -> Kill:
        """Start a command and end it after up to `most_calls` calls and a moment more, or while it starts."""
        before = self._books_bytes()
        process = self.user.start(*args)
        if number is signal.SIGKILL and self.dice.random() < 0.15:
            wait_s = self.dice.uniform(0.0, 1.0)
            how = f"{number.name} {wait_s:.3f} s after the start"
        else:
            calls, wait_s = self.dice.randint(1, most_calls), self.dice.uniform(0.0, 0.02)
            how = f"{number.name} {calls} calls and {wait_s * 1000:.1f} ms after the start"
            self._wait_for_bytes(process, before + calls * 105)
        time.sleep(wait_s)
        return self._end(process, number, how)

    def strike_after(self, event: str, *args: str, most_s: float) -> Kill:
        """Start a command and kill it up to `most_s` seconds after this event is in the run's log."""
        seen = self._events(event)
        process = self.user.start(*args)
        wait_until(lambda: self._events(event) > seen or process.popen.poll() is not None)
        wait_s = self.dice.uniform(0.0, most_s)
        time.sleep(wait_s)
        return self._end(process, signal.SIGKILL, f"SIGKILL {wait_s:.3f} s after {event!r}")

    def _end(self, process: Process, number: signal.Signals, how: str) -> Kill:
        begun = self.kills[-1].books_bytes if self.kills else self._first_byte
        process.signal(number)
        code = process.wait().code
        # What was on the wire is answered, and billed, to nobody.
        wait_until(lambda: self.endpoint.in_flight() == 0)
        kill = Kill(
            how=f"{self}, end {len(self.kills) + 1}: {how}",
            code=code,
            held=asyncio.run(held_by(self.user.run_dir / "ledger.db")),
            paid=frozenset(line.key for line in self.endpoint.lines(begun) if line.what == "answered"),
            books_bytes=self._books_bytes(),
            csv_keys=whole_keys(self.user.run_dir / "labels.csv"),
        )
        self.kills.append(kill)
        return kill

    def _books_bytes(self) -> int:
        return self.endpoint.books_path.stat().st_size

    def _wait_for_bytes(self, process: Process, size: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while self._books_bytes() < size and process.popen.poll() is None:
            assert time.monotonic() < end, f"{self}: no call came"
            time.sleep(0.001)

    def _events(self, event: str) -> int:
        log = self.user.run_dir / "run.log"
        return log.read_text(encoding="utf-8").count(event) if log.exists() else 0

    def __str__(self) -> str:
        return f"{self.user.folder.name}, seed {self.seed}"


async def held_by(path: Path) -> dict[str, Mapping[str, Any] | None]:
    """The ledger's outcomes by key: the label, or None for one without. Reads only."""
    held: dict[str, Mapping[str, Any] | None] = {}
    if not path.exists():
        return held
    try:
        opened = await Ledger.open(path, read_only=True)
    except SetupError as error:
        if "the ledger is empty" not in str(error):
            raise
        return held  # killed while it was made: the next session makes it
    async with opened as ledger:
        seq = 0
        while block := await ledger.rows_after(seq):
            seq = block[-1][0]
            for _, outcome in block:
                assert outcome.record.key not in held, "a key twice in the ledger"
                held[outcome.record.key] = outcome.label if outcome.status is Status.LABELLED else None
    return held


def whole_keys(path: Path) -> list[str]:
    """The keys of the rows of a CSV that may end in a torn row, each checked for its width."""
    if not path.exists() or not (text := path.read_bytes().decode("utf-8", "replace")):
        return []
    rows = list(csv.reader(io.StringIO(text, newline="")))
    # A row is whole if its line end is there; inside quotes a line end is none, and then the last row is torn too.
    is_torn = not text.endswith("\n") or (len(rows) > 1 and len(rows[-1]) != len(rows[0]))
    whole = rows[1 : len(rows) - is_torn]
    assert all(len(row) == len(rows[0]) for row in whole), f"{path}: a torn row that is not the last one"
    return [row[0] for row in whole]


def prove(scene: Scene) -> None:
    """What has to hold for any run that was killed and has come to its end."""
    given = scene.endpoint.given()
    wanted = [row["id"] for row in scene.rows]
    labels = {row["id"]: row for row in scene.user.labels()}
    assert len(scene.user.labels()) == len(labels), f"{scene}: a row twice"
    assert labels.keys() == set(wanted), f"{scene}: a row lost"
    for row in scene.rows:
        assert labels[row["id"]]["text"] == row["text"]
        answers = [answer["label"] for answer in given[row["id"]] if answer]
        assert labels[row["id"]]["label"] in answers, f"{scene}: {row['id']} has a label that nobody gave"
    for kill in scene.kills:
        asked = {line.key for line in scene.endpoint.lines(kill.books_bytes)}
        held = {key for key, label in kill.held.items() if label is not None}
        assert not asked & held, f"{kill.how}: asked again although the ledger held them: {asked & held}"
        assert len(kill.csv_keys) == len(set(kill.csv_keys)), f"{kill.how}: a row twice in the CSV"
        assert set(kill.csv_keys) <= held, f"{kill.how}: a row in the CSV before the ledger had it"
        assert len(kill.wasted) <= scene.most_wasted, f"{kill.how}: paid again for {sorted(kill.wasted)}"
    for key, answers in given.items():
        cost = sum(key in kill.wasted for kill in scene.kills)
        assert len(answers) - 1 <= cost, f"{scene}: {key} was paid {len(answers)} times, kills explain {cost}"
    counts = scene.user.verify()
    assert (counts["labelled"], counts["pending"], counts["orphans"]) == (len(wanted), 0, 0)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
