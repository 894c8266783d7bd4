"""What the end-to-end and the chaos tests share: endpoints with books, project folders, real processes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from end_to_end.forked import Fork
from end_to_end.served import PATIENCE_S, Endpoint, Endpoints, Line, wait_until

from pipeline import verify

__all__ = [
    "CODES",
    "LABELPIPE",
    "PATIENCE_S",
    "Done",
    "Endpoint",
    "Endpoints",
    "Line",
    "Process",
    "Project",
    "Row",
    "environment",
    "project",
    "read_csv",
    "rows",
    "wait_until",
]

LABELPIPE = [sys.executable, "-m", "pipeline"]
#: Many values that no text names: the endpoint's choice depends on the whole prompt, so a swapped label shows.
CODES = [f"c{number:02}" for number in range(24)]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    args: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be exactly one JSON object on one line."""
        assert self.out.count("\n") == 1, f"stdout is not one line: {self.out!r}\n{self.err}"
        value = json.loads(self.out)
        assert isinstance(value, dict), f"stdout is no JSON object: {self.out!r}"
        return value

    def expect(self, code: int) -> Done:
        """Itself, if it ended so."""
        assert self.code == code, f"{' '.join(self.args)}: exit code {self.code}, not {code}\n{self.out}\n{self.err}"
        return self


class Process:
    """A `labelpipe` command at work. Those that a failing test leaves behind are ended by `end_all`."""

    _at_work: ClassVar[list[Process]] = []

    def __init__(self, args: Sequence[str], popen: subprocess.Popen[str] | Fork) -> None:
        self.args = args
        self.popen = popen
        self._at_work.append(self)

    @classmethod
    def end_all(cls) -> None:
        """Kill what nobody waited for."""
        for process in cls._at_work:
            if process.popen.returncode is None:
                process.kill()
        cls._at_work.clear()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def kill(self) -> int:
        """SIGKILL; gives how it ended: it may have been faster."""
        self.popen.kill()
        self.popen.communicate()
        return self.popen.returncode

    def wait(self, given: str | None = None) -> Done:
        """Let it end."""
        try:
            out, err = self.popen.communicate(given, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            out, err = self.popen.communicate()
            raise AssertionError(f"{' '.join(self.args)} hangs\n{out}\n{err}") from None
        return Done(self.args, self.popen.returncode, out, err)


@dataclass
class Project:
    """A folder with an input and a config, in which commands are given."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def give(self, rows: Iterable[Row], name: str = "in.jsonl") -> None:
        """Write the input."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / name).write_text(text, encoding="utf-8")

    def configure(self, **tables: Mapping[str, Any]) -> None:
        """Lay tables over the config and write it. A value None takes a key out."""
        for name, table in tables.items():
            merged = {**self.config.get(name, {}), **table}
            self.config[name] = {key: value for key, value in merged.items() if value is not None}
        text = "".join(f"[{name}]\n{_toml_lines(table)}" for name, table in self.config.items())
        (self.folder / "job.toml").write_text(text, encoding="utf-8")

    def start(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        as_a_user: bool = False,
    ) -> Process:
        """Give a command. It is forked from a process that has imported the package, or begins as a user's does."""
        if not as_a_user:
            return Process(args, Fork(args, self.folder, environment(env), stdin))
        popen = subprocess.Popen(
            [*LABELPIPE, *args],
            cwd=self.folder,
            env=environment(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        return Process(args, popen)

    def do(
        self, *args: str, env: Mapping[str, str] | None = None, given: str | None = None, as_a_user: bool = False
    ) -> Done:
        """Give a command and wait for its end."""
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        return self.start(*args, env=env, stdin=stdin, as_a_user=as_a_user).wait(given)

    def run(self, *args: str, code: int = 0) -> dict[str, Any]:
        """`run job.toml --json`, which must end so; its summary."""
        return self.do("run", "job.toml", "--json", *args).expect(code).json

    def verify(self, name: str = "run") -> Mapping[str, int]:
        """The proof of a run from its files, which must hold; its counts. In this process, to save time."""
        report = verify(self.folder / name, remote=True)
        assert report.ok, "\n".join(report.lines())
        return report.counts

    def labels(self) -> list[dict[str, str]]:
        """The rows of labels.csv."""
        return read_csv(self.run_dir / "labels.csv")

    def failed(self) -> list[dict[str, str]]:
        """The rows of failed.csv."""
        return read_csv(self.run_dir / "failed.csv")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that would be taken for a setting, or for the size of a terminal."""
    ours = ("LABELPIPE_", "OPENAI_", "COLUMNS", "LINES")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**plain, **(more or {})}


def read_csv(path: Path) -> list[dict[str, str]]:
    """A CSV's rows, strictly: a row too short or too long is an error."""
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file, strict=True)
    return [dict(zip(head, row, strict=True)) for row in rows]


#: What a file format may stumble over.
_SPICE = [
    "plain words",
    "commas, and; more, of them",
    'said "twice", then ""',
    'two\nlines, a "quote" and\r\nthree',
    "이 제품을 사랑해요!",
    "emoji 🎉👩‍👩‍👧 and é",
    "=SUM(A1:A9)",
    "  spaces around\t",
    "{{ text }} {% raw %}",
]


def rows(count: int, first: int = 1) -> list[Row]:
    """Records with awkward texts, whose keys are r0001 and so on."""
    return [
        {"id": f"r{number:04}", "text": f"{_SPICE[number % len(_SPICE)]} ({number})"}
        for number in range(first, first + count)
    ]


def project(folder: Path, base_url: str, count: int = 20, **tables: Mapping[str, Any]) -> Project:
    """A project of `count` records whose labels are codes, with `tables` laid over its config."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Project(folder)
    made.give(rows(count))
    made.configure(
        input={"path": "in.jsonl", "key": "id"},
        task={"prompt": "{{ id }} {{ text }}", "labels": {"label": CODES}},
        model={"name": "gpt-6-luna", "base_url": base_url, "timeout_s": 20},
        limits={"concurrency": 8},
        output={"dir": "run"},
    )
    made.configure(**tables)
    return made


def _toml_lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
