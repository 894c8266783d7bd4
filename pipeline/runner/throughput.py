"""Records a session's pace for the report: counts per span of time, and each outage."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

from pipeline import codec
from pipeline.limits import Admission, AdmissionState, Outage
from pipeline.stats import Stats
from pipeline.store import RunDir

#: A line a second at first, and then one whenever the session has become longer by this share: about 1,200 lines for
#: ten hours and 1,800 for a week. Otherwise the file of a long run would have more lines than a chart can show.
SHARE = 1 / 200
SHORTEST_S = 1.0


def interval_s(elapsed_s: float) -> float:
    """Return the length of a span that begins at this age."""
    return max(SHORTEST_S, elapsed_s * SHARE)


class Throughput:
    """Appends to throughput.jsonl. Call `check` about once a second, in the session's loop. Raises OSError."""

    def __init__(self, run_dir: RunDir, stats: Stats, admission: Admission) -> None:
        self._path = run_dir.throughput
        self._stats = stats
        self._admission = admission
        self._session = round(time.time() - stats.elapsed_s, 3)
        # Mutable state: the counts and the session's age at the last line, the number of outages written, and whether
        # this session has written a line.
        self._before = self._counts()
        self._at_s = stats.elapsed_s
        self._outages = 0
        self._is_begun = False

    def check(self) -> None:
        """Write what is due."""
        if self._stats.elapsed_s - self._at_s >= interval_s(self._at_s):
            self._write_counts()
        gate = self._admission.gate
        # One that begins again before it has settled is the same outage.
        self._write_outages(gate.outages[: -1 if gate.is_settling(asyncio.get_running_loop().time()) else None])

    def close(self) -> None:
        """Write what is not written yet."""
        self._write_counts()
        gate = self._admission.gate
        self._write_outages([*gate.outages, *([gate.outage] if gate.outage is not None else [])])

    def _write_counts(self) -> None:
        """Write the counts since the last line, and the limits in force. Rates are per minute, times are Unix times."""
        door, counts, elapsed_s = self._admission.state(), self._counts(), self._stats.elapsed_s
        since = {name: count - self._before[name] for name, count in counts.items()}
        self._append(
            at=round(time.time(), 3),
            span_s=round(elapsed_s - self._at_s, 3),
            **since,
            in_flight=door.in_flight,
            requests_per_minute=door.requests_per_minute,
            tokens_per_minute=door.tokens_per_minute,
            state=_state(door, paused=self._admission.gate.paused),
        )
        self._before, self._at_s = counts, elapsed_s

    def _write_outages(self, outages: Sequence[Outage]) -> None:
        """Write new outages. An ongoing one is written at the session's end."""
        now = asyncio.get_running_loop().time()
        ahead_s = time.time() - now
        for outage in outages[self._outages :]:
            until = now if outage.until is None else outage.until
            self._append(since=round(ahead_s + outage.since, 3), until=round(ahead_s + until, 3), outage=outage.reason)
        self._outages = max(self._outages, len(outages))

    def _counts(self) -> dict[str, int]:
        stats, admission = self._stats, self._admission
        return {
            "records": stats.records,
            "calls": admission.calls,
            "answers": stats.answers,
            "refused": admission.refusals,
            "tokens": stats.usage.total,
        }

    def _append(self, **facts: Any) -> None:
        line = codec.dumps({"session": self._session, **facts}) + b"\n"
        with self._path.open("a+b") as file:
            if not self._is_begun and file.tell() and not _ends_whole(file):
                line = b"\n" + line  # a kill has cut off the last session's last line
            file.write(line)
        self._is_begun = True


def _ends_whole(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _state(door: AdmissionState, *, paused: bool) -> str:
    """Return whether the run works, or why it does not."""
    if door.outage is not None:
        return "outage"
    if paused:
        return "paused"
    return "held" if door.hold_s > SHORTEST_S else "open"
