"""Computes the pace of a run over its active time: session after session, without the time between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import codec

#: The most points of a chart. More would be narrower than a pixel.
BUCKETS = 240
#: The fields of a line of throughput.jsonl that must be numbers.
_COUNTS = ("at", "span_s", "records", "calls", "answers", "refused")


@dataclass(frozen=True, slots=True)
class PaceBucket:
    """The pace in a time span that ends at `until_s`. Rates are per minute; `limit` is None if there was none."""

    since_s: float
    until_s: float
    answered: float
    refused: float
    limit: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run's pace. Times are active seconds since the run began; `borders` is where each later session begins.

    `unit` is what the rates count: calls, or records if the run has recorded no calls. `ended_at` is in seconds since
    1970. `tokens_each` is the tokens per answer, which convert a limit of tokens to one of calls; None without such a
    limit.
    """

    buckets: Sequence[PaceBucket] = ()
    outages: Sequence[tuple[float, float, str]] = ()
    borders: Sequence[float] = ()
    unit: str = "calls"
    totals: Mapping[str, int] = field(default_factory=dict)
    tokens_each: float | None = None
    ended_at: float | None = None

    @property
    def length_s(self) -> float:
        """How long the run was active."""
        return self.buckets[-1].until_s if self.buckets else 0.0

    @property
    def sessions(self) -> int:
        """How many sessions recorded their pace."""
        return len(self.borders) + 1 if self.buckets else 0

    @property
    def outage_s(self) -> float:
        """How long calls failed for every record."""
        return sum(until - since for since, until, _ in self.outages)


@dataclass(slots=True)
class _SessionPace:
    """The lines of one session, and its offset on the time axis. `begins_at` is in seconds since 1970."""

    begins_at: float
    offset_s: float = 0.0
    length_s: float = 0.0
    spans: list[dict[str, Any]] = field(default_factory=list)
    outages: list[dict[str, Any]] = field(default_factory=list)


def read_timeline(path: Path) -> Timeline | None:
    """Read the pace in throughput.jsonl; None if there is none."""
    sessions = [one for one in _sessions(path) if one.length_s > 0]
    if not sessions:
        return None
    totals = {name: sum(span[name] for one in sessions for span in one.spans) for name in _COUNTS[2:]}
    tokens_each = _tokens_each(sessions)
    return Timeline(
        buckets=_buckets(sessions, tokens_each),
        tokens_each=tokens_each,
        outages=[outage for one in sessions for outage in _outages(one)],
        borders=[one.offset_s for one in sessions[1:]],
        totals=totals,
        ended_at=max(span["at"] for one in sessions for span in one.spans),
    )


def timeline_of(finished: Mapping[int, int], span_s: float) -> Timeline:
    """Return the pace of a run that has not recorded it: records by the span in which they ended."""
    if not finished:
        return Timeline(unit="records")
    buckets = [
        PaceBucket(at * span_s, (at + 1) * span_s, finished.get(at, 0) / span_s * 60, 0.0, None)
        for at in range(max(finished) + 1)
    ]
    return Timeline(buckets=buckets, unit="records")


def _sessions(path: Path) -> list[_SessionPace]:
    sessions: dict[float, _SessionPace] = {}
    for line in _lines(path):
        session = sessions.setdefault(line["session"], _SessionPace(line["session"]))
        if codec.is_number(line.get("since")) and codec.is_number(line.get("until")):
            session.outages.append(line)
        elif all(codec.is_number(line.get(name)) for name in _COUNTS) and line["span_s"] > 0:
            session.spans.append(line)
            session.length_s += line["span_s"]
    offset_s = 0.0
    for session in sessions.values():
        session.offset_s = offset_s
        offset_s += session.length_s
    return list(sessions.values())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the readable lines. A kill may have cut one off."""
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    line = codec.loads(text)
                except codec.JSONDecodeError:
                    continue
                if isinstance(line, dict) and codec.is_number(line.get("session")):
                    yield line
    except FileNotFoundError:
        return


def _outages(session: _SessionPace) -> Iterator[tuple[float, float, str]]:
    for line in session.outages:
        since, until = (min(max(line[name] - session.begins_at, 0.0), session.length_s) for name in ("since", "until"))
        if until > since:
            yield session.offset_s + since, session.offset_s + until, str(line.get("outage", ""))


def _tokens_each(sessions: Sequence[_SessionPace]) -> float | None:
    spans = [span for one in sessions for span in one.spans]
    if not any(codec.is_number(span.get("tokens_per_minute")) for span in spans):
        return None
    tokens = sum(span["tokens"] for span in spans if codec.is_number(span.get("tokens")))
    return tokens / max(1, sum(span["answers"] for span in spans)) or None


def _limit(span: Mapping[str, Any], tokens_each: float | None) -> float | None:
    """Return the calls per minute that the limits in force allow."""
    limits = []
    if codec.is_number(span.get("requests_per_minute")):
        limits.append(float(span["requests_per_minute"]))
    if codec.is_number(span.get("tokens_per_minute")) and tokens_each:
        limits.append(span["tokens_per_minute"] / tokens_each)
    return min(limits, default=None)


def _buckets(sessions: Sequence[_SessionPace], tokens_each: float | None) -> list[PaceBucket]:
    """Return spans of equal length, none shorter than the longest recorded one, because that would add no detail."""
    length_s = sessions[-1].offset_s + sessions[-1].length_s
    longest_s = max(span["span_s"] for one in sessions for span in one.spans)
    number = max(1, min(BUCKETS, int(length_s / longest_s)))
    width_s = length_s / number
    answered, refused = [0.0] * number, [0.0] * number
    limits: list[float | None] = [None] * number
    for since_s, span in _with_begin(sessions):
        for at, share in _shares(since_s, span["span_s"], width_s, number):
            answered[at] += span["answers"] * share
            refused[at] += span["refused"] * share
            limits[at] = _limit(span, tokens_each)
    a_minute = 60 / width_s
    return [
        PaceBucket(at * width_s, (at + 1) * width_s, answered[at] * a_minute, refused[at] * a_minute, limits[at])
        for at in range(number)
    ]


def _with_begin(sessions: Sequence[_SessionPace]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield each span with its start."""
    for session in sessions:
        at_s = session.offset_s
        for span in session.spans:
            yield at_s, span
            at_s += span["span_s"]


def _shares(since_s: float, span_s: float, width_s: float, number: int) -> Iterator[tuple[int, float]]:
    """Yield the buckets that a span overlaps, with the share of the span in each."""
    first, last = (min(number - 1, int(at_s / width_s)) for at_s in (since_s, since_s + span_s))
    for at in range(first, last + 1):
        begins, ends = max(since_s, at * width_s), min(since_s + span_s, (at + 1) * width_s)
        if ends > begins or first == last:
            yield at, (ends - begins) / span_s if first != last else 1.0
