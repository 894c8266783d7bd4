"""`labelpipe` commands as processes of their own that do not import the package first: each is a fork of one that has.
With `-c PROGRAM` it is a program that imports the package.

Importing takes longer than most of these commands. What is forked is as real as any process: it has its own
environment, folder, and streams, and it can be killed. `python forked.py FD` forks whenever a message comes on that
socket, and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

#: What commands import only when they need it.
LATER = (
    *("encodings.unicode_escape", "encodings.utf_8_sig", "filelock", "multiprocessing.synchronize"),
    *("genai_prices.data", "genai_prices.decompose", "genai_prices.validation"),
    *("openai.resources.chat", "openai.resources.models", "pipeline.providers.wire", "pygal"),
    *("fsspec", "gzip", "resource", "s3fs", "sqlalchemy.dialects.sqlite", "zstandard"),
    *("typer._adapters", "typer._click._textwrap", "typer._click.decorators"),
)
JOB = """
input.path = "in.jsonl"
task = {prompt = "{{ text }}", labels = {label = ["a", "b"]}}
model = {name = "gpt-6-luna", base_url = "rehearsal"}
output.dir = "run"
rehearsal.latency_ms = 0
"""
#: How long threads of that run may take to end.
PATIENCE_S = 30.0
#: A message holds a command's words and its environment.
MOST_BYTES = 2**18
#: Scenes that go on side by side start their commands from threads; one process that forks is enough for all.
_TURN = threading.Lock()


class Fork:
    """A command at work, with what the tests use of `subprocess.Popen`.

    Its stdout and stderr are read from here, or are the descriptors `out` and `err`. Those stay open here, as does one
    that is given as `stdin`.
    """

    def __init__(
        self,
        args: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
        clock: Path | None = None,
        *,
        out: int | None = None,
        err: int | None = None,
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        reading, self.stdin = self._input(stdin)
        out_here, out_of_child = os.pipe()
        err_here, err_of_child = os.pipe()
        self._report, report_of_child = os.pipe()
        for theirs, instead in ((out_of_child, out), (err_of_child, err)):
            if instead is not None:
                os.dup2(instead, theirs)
        given = (reading, out_of_child, err_of_child, report_of_child)
        facts = {"args": list(args), "cwd": str(cwd), "env": dict(env), "clock": str(clock or "")}
        with _TURN:
            socket.send_fds(_forks(clock is not None)[0], [json.dumps(facts).encode()], given)
        for descriptor in given:
            os.close(descriptor)
        self.stdout: IO[str] = os.fdopen(out_here, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err_here, encoding="utf-8")
        self.pid = int(self._read_report())

    @staticmethod
    def _input(stdin: int) -> tuple[int, IO[str] | None]:
        if stdin == subprocess.DEVNULL:
            return os.open(os.devnull, os.O_RDONLY), None
        if stdin != subprocess.PIPE:
            return os.dup(stdin), None
        reading, writing = os.pipe()
        return reading, os.fdopen(writing, "w", encoding="utf-8")

    def _read_report(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(self._report, 1)
            assert part, "the process that forks has ended"
            line += part
        return line

    def poll(self) -> int | None:
        """The exit code; None while it is at work."""
        return self._ended(0.0)

    def _ended(self, within_s: float) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], within_s)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._read_report()))
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """What it writes, to its end."""
        until = time.monotonic() + (timeout or 3600.0)
        if self.stdin is not None:
            self.stdin.write(given or "")
            self.stdin.close()
        texts = ["", ""]

        def read(number: int, stream: IO[str]) -> None:
            with stream:
                texts[number] = stream.read()

        threads = [
            threading.Thread(target=read, args=one, daemon=True)
            for one in enumerate((self.stdout, self.stderr))
            if not one[1].closed
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(until - time.monotonic())
        if self._ended(max(0.0, until - time.monotonic())) is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 3600.0)
        return texts[0], texts[1]


@cache
def _forks(is_moved: bool = False) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that forks, and the socket on which it is told to. It ends with this one.

    Another one forks commands whose clock a test moves.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno()), *(["moved"] if is_moved else [])]
        return ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])


def serve(orders: socket.socket) -> dict[str, Any] | None:
    """Fork for each message. Gives the message in the child, and None at the end."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking)
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([orders, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _report_the_dead(reports)
        if orders not in ready:
            continue
        message, given, _, _ = socket.recv_fds(orders, MOST_BYTES, 4)
        if not message:
            return None
        *streams, report = given
        pid = os.fork()
        if pid == 0:
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.closerange(3, 1024)
            orders.detach()
            found: dict[str, Any] = json.loads(message)
            return found
        reports[pid] = report
        os.write(report, b"%d\n" % pid)
        for descriptor in streams:
            os.close(descriptor)


def _report_the_dead(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        os.write(report, b"%d\n" % status)
        os.close(report)


def main() -> None:
    """Import the package, then fork."""
    follow = _moved() if sys.argv[2:] else None
    # Only now: parts take hold of the clock as they are imported.
    import typer

    import pipeline.cli

    for found in pkgutil.iter_modules(pipeline.__path__):
        if found.name != "__main__":
            importlib.import_module(f"pipeline.{found.name}")
    for name in LATER:
        with contextlib.suppress(ModuleNotFoundError):  # parts of other packages have other names in other versions
            importlib.import_module(name)
    typer.main.get_command = cache(typer.main.get_command)  # typer builds all commands anew for each call
    _label_one(typer.main.get_command(pipeline.cli.app))
    others = [one for one in threading.enumerate() if one is not threading.current_thread()]
    for one in others:
        one.join(PATIENCE_S)  # on a busy machine they may still be about to end
    assert threading.active_count() == 1, f"a process with threads does not fork safely: {others}"
    gc.freeze()
    if command := serve(socket.socket(fileno=int(sys.argv[1]))):
        os.chdir(command["cwd"])
        os.environ.clear()
        os.environ.update(command["env"])
        sys.path[0] = command["cwd"]
        if follow is not None:
            follow(Path(command["clock"]))
        sys.argv[1:] = command["args"]
        try:
            if sys.argv[1:2] == ["-c"]:
                del sys.argv[0]
                exec(sys.argv.pop(1), {"__name__": "__main__"})
            else:
                runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            _exit(ended.code)


def _label_one(command: Callable[[list[str]], object]) -> None:
    """A run of one record: what any run makes at its first use (patterns, adapters, prices) is made once for all."""
    silent = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
        contextlib.suppress(SystemExit),
    ):
        Path("in.jsonl").write_text('{"text": "x"}', encoding="utf-8")
        Path("job.toml").write_text(JOB, encoding="utf-8")
        command(["run", "job.toml", "--json"])
    assert '"labelled":1' in silent.getvalue(), silent.getvalue()


def _moved() -> Callable[[Path], None]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
    moved = importlib.import_module("moved")
    del sys.path[0]
    return moved.move_clocks()  # type: ignore[no-any-return]


def _exit(code: object) -> None:
    """End as the interpreter does, but for taking apart all that was imported: that takes as long as many commands."""
    if code is None or isinstance(code, int):
        threading._shutdown()  # type: ignore[attr-defined] # waits for threads that are no daemons
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        os._exit(code or 0)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
