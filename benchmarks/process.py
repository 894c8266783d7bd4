"""Children and what they cost: wall time, CPU, peak memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished child took. Times of begin and end are `time.monotonic()`; `cpu_s` is user and system time."""

    began_at: float
    ended_at: float
    cpu_s: float
    peak_mb: float
    exit_code: int
    said: str

    def checked(self, *exit_codes: int) -> Cost:
        """Itself. Raises RuntimeError where the exit code is none of these; without any, all are good."""
        if exit_codes and self.exit_code not in exit_codes:
            raise RuntimeError(f"ended with {self.exit_code}: {self.said[-1000:]}")
        return self

    @property
    def wall_s(self) -> float:
        """Seconds from start to end."""
        return self.ended_at - self.began_at


class Child:
    """A running process whose cost is measured."""

    def __init__(self, arguments: Sequence[str | Path], log: Path) -> None:
        self._log = log
        self.began_at = time.monotonic()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, arguments)], cwd=ROOT, env=_environment(), stdout=out, stderr=out
            )
        self._peak_mb = 0.0

    def wait(self, *, until: Callable[[], bool] | None = None, look_s: float = LOOK_S) -> Cost:
        """The cost once it has ended; it is killed (SIGKILL) as soon as `until`, asked each `look_s`, says so."""
        while True:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            self._peak_mb = max(self._peak_mb, self._resident_peak_mb())
            if until is not None and until():
                self._process.send_signal(signal.SIGKILL)
                until = None
            time.sleep(look_s)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Cost(
            began_at=self.began_at,
            ended_at=time.monotonic(),
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_mb=self._peak_mb or usage.ru_maxrss / (1024 * (1024 if sys.platform == "darwin" else 1)),
            exit_code=self._process.returncode,
            said=self._log.read_text(encoding="utf-8", errors="replace"),
        )

    def _resident_peak_mb(self) -> float:
        """The kernel's own high-water mark. `ru_maxrss` would count this process too, from before the exec."""
        try:
            for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        except (OSError, ValueError):
            pass
        return 0.0


def _environment() -> dict[str, str]:
    """Ours, without what would change a contender: its settings, its key, a proxy for loopback.

    PYTHONDONTWRITEBYTECODE goes as well: with it, each start compiles our modules anew, as no user's does.
    """
    ours = ("LABELPIPE_", "OPENAI_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "OPENAI_API_KEY": "bench", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
