"""What every section works with: the endpoint's process, its lanes, a work folder, inputs, configs, contenders."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.process import ROOT, Child, Cost
from benchmarks.rules import Rules
from benchmarks.truth import LABELS, MODEL, PROMPT, SYSTEM, label_of, write_input

CONCURRENCY = 200
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Lane:
    """One server of the endpoint: rules and books of its own."""

    url: str

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes."""
        return f"{self.url}/v1"

    def set_rules(self, rules: Rules) -> None:
        """New rules, new books."""
        _call(urllib.request.Request(f"{self.url}/rules", json.dumps(asdict(rules)).encode(), method="PUT"))

    def books(self, *, records: bool = False) -> dict[str, Any]:
        """What happened so far."""
        return _call(urllib.request.Request(f"{self.url}/books{'?records' if records else ''}"))


def _call(request: urllib.request.Request) -> dict[str, Any]:
    with _DIRECT.open(request, timeout=30) as response:
        found: dict[str, Any] = json.loads(response.read())
    return found


@dataclass(frozen=True, slots=True)
class Rows:
    """What a run's labels.csv holds, held against the truth."""

    rows: int
    lost: int
    duplicates: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Job:
    """One labelpipe run: its lane, its config and its folder."""

    lane: Lane
    config: Path
    folder: Path
    log: Path
    tables: Mapping[str, Mapping[str, Any]]

    def write(self, **limits: float | str) -> None:
        """Write the config, with these limits in place of its own; at once, as editors do."""
        tables = {**self.tables, "limits": {**self.tables["limits"], **limits}}
        new = self.config.with_suffix(".new")
        new.write_text("\n".join(_table(title, values) for title, values in tables.items()), encoding="utf-8")
        new.replace(self.config)

    def start(self) -> Child:
        """`labelpipe run` in a process of its own."""
        return Child(["-m", "pipeline", "run", self.config], self.log)

    def run(self, *exit_codes: int) -> Cost:
        """The whole run. Raises RuntimeError where it ended otherwise than with one of these codes."""
        return self.start().wait().checked(*exit_codes)

    def until(self, over: Callable[[], bool], *, look_s: float) -> dict[str, Any]:
        """The books of a run that is killed once it is over. Raises RuntimeError where it ended by itself."""
        self.start().wait(until=over, look_s=look_s).checked(-signal.SIGKILL)
        return self.lane.books()

    def rows(self, records: int) -> Rows:
        """The CSV against the truth, for records 0 .. records-1."""
        seen: dict[int, int] = {}
        wrong = 0
        with (self.folder / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                number = int(row["id"][1:])
                seen[number] = seen.get(number, 0) + 1
                wrong += row["label"] != label_of(number)
        total = sum(seen.values())
        return Rows(rows=total, lost=records - len(seen), duplicates=total - len(seen), wrong=wrong)


class Bench:
    """The endpoint and a work folder, both gone at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="labelpipe-bench-"))
        self._endpoint = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.endpoint"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._endpoint.stdout is not None
        self._root = f"http://127.0.0.1:{int(self._endpoint.stdout.readline())}"

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._endpoint.kill()
        self._endpoint.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def lane(self, name: str, rules: Rules) -> Lane:
        """A server with these rules and empty books."""
        lane = Lane(f"{self._root}/{name}")
        lane.set_rules(rules)
        return lane

    def input(self, records: int) -> Path:
        """A file of so many records; written once."""
        path = self.folder / f"input-{records}.jsonl"
        return path if path.exists() else write_input(path, records)

    def job(
        self,
        name: str,
        rules: Rules,
        records: int,
        *,
        limits: Mapping[str, float | str] | None = None,
        model: Mapping[str, Any] | None = None,
        batch: Mapping[str, Any] | None = None,
        shards: int | None = None,
    ) -> Job:
        """A labelpipe run of its own name, with a lane of that name."""
        lane = self.lane(name, rules)
        folder = self.folder / f"run-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        tables: dict[str, Mapping[str, Any]] = {
            "input": {"path": str(self.input(records)), "key": "id"},
            "task": {"system": SYSTEM, "prompt": PROMPT + "{{ text }}"},
            "task.labels": {"label": list(LABELS)},
            "model": {"name": MODEL, "base_url": lane.base_url, **(model or {})},
            "limits": {"concurrency": CONCURRENCY, **(limits or {})},
            "output": {"dir": str(folder)},
            **({} if batch is None else {"batch": batch}),
            **({} if shards is None else {"scale": {"shards": shards}}),
        }
        job = Job(lane, self.folder / f"{name}.toml", folder, self.folder / f"{name}.log", tables)
        job.write()
        return job

    def contender(self, name: str, *arguments: str | Path) -> Cost:
        """Another contender's whole run. Raises RuntimeError where it failed."""
        child = Child(["-m", f"benchmarks.contenders.{name}", *arguments], self.folder / f"{name}.log")
        return child.wait().checked(0)


def _table(title: str, values: Mapping[str, Any]) -> str:
    """A TOML table; JSON's strings, numbers, booleans and lists are TOML's too. Tables in it follow it."""
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in inner]
    return "\n".join([f"[{title}]", *plain, *(_table(f"{title}.{key}", value) for key, value in inner.items()), ""])
