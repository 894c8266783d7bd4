"""Defines the options of the endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.rehearsal.faults import BATCH_FAULTS, FAULT_KINDS, FLEX_REFUSALS


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """What the endpoint does. Times are in seconds unless the name says ms. Shares and probabilities are 0 to 1.

    latency_jitter   0.2 spreads the latency over 80 to 120 %
    slow_share       share of calls that take `slow_factor` times as long
    burst_s          how much may be sent at once after a pause, in seconds of the rate: 60 allows a whole minute's
                     worth, as OpenAI mostly does; 1 enforces the limits over each second
    accuracy         share of gold labels that are right
    faults           kind -> probability per call; the kinds are `FAULT_KINDS`
    poison           text in the prompt -> kind: every call with that text in a user message fails this way
    outages          (start, end) after the first call: 503 for all
    quota_after      answers until the quota is used up and every call is refused
    max_in_flight    above it the latency grows in proportion; above twice as many, calls are refused
    context_tokens   a longer prompt is refused
    models           known names; empty: any name
    api_key          if set, calls with another key get 401
    batch_s          seconds that a batch takes
    batch_queue_tokens  tokens that batches may have queued at once; None: no limit
    batch_faults     kind -> probability per file, batch, or line; the kinds are `BATCH_FAULTS`
    flex_full        share of flex calls that find the tier full during the first `flex_full_s` seconds (None: always);
                     `flex_form` is the refusal: "429" as OpenAI sends it, "498" as Groq does
    books_path       a JSONL file that gets a line when a call ends, and keeps it if the process is killed afterwards
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 0
    latency_ms: float = 50.0
    latency_jitter: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 10.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_day: float | None = None
    burst_s: float = 60.0
    accuracy: float = 1.0
    faults: Mapping[str, float] = field(default_factory=dict)
    poison: Mapping[str, str] = field(default_factory=dict)
    outages: Sequence[tuple[float, float]] = ()
    quota_after: int | None = None
    max_in_flight: int | None = None
    context_tokens: int = 128_000
    headers: bool = True
    retry_after: bool = True
    models: Sequence[str] = ("gpt-6-luna", "gpt-6-sol", "gpt-5-mini", "gpt-4.1-mini", "gpt-4o-mini")
    api_key: str | None = None
    batch_s: float = 1.0
    batch_queue_tokens: int | None = None
    batch_faults: Mapping[str, float] = field(default_factory=dict)
    flex_full: float = 0.0
    flex_full_s: float | None = None
    flex_form: str = "429"
    books_path: str | Path | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        for name in ("latency_jitter", "slow_share", "accuracy", "flex_full"):
            _expect(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a number from 0 to 1")
        for name in (
            "requests_per_minute",
            "tokens_per_minute",
            "requests_per_day",
            "max_in_flight",
            "burst_s",
            "batch_queue_tokens",
        ):
            value = getattr(self, name)
            _expect(value is None or value > 0, name, value, "a number above 0")
        for name in ("latency_ms", "batch_s"):
            _expect(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _expect(self.flex_form in FLEX_REFUSALS, "flex_form", self.flex_form, " or ".join(FLEX_REFUSALS))

    def _check_kinds(self) -> None:
        for name, kinds in (("faults", self.faults), ("poison", self.poison.values())):
            for kind in kinds:
                _expect(kind in FAULT_KINDS, name, kind, "one of " + ", ".join(FAULT_KINDS))
        for kind, chance in self.batch_faults.items():
            _expect(kind in BATCH_FAULTS, "batch_faults", kind, "one of " + ", ".join(BATCH_FAULTS))
            _expect(0 <= chance <= 1, f"batch_faults.{kind}", chance, "a number from 0 to 1")
        chances = self.faults.values()
        fits = all(0 <= chance <= 1 for chance in chances) and sum(chances) <= 1 + 1e-9
        _expect(fits, "faults", dict(self.faults), "probabilities that add up to 1 at most")


def _expect(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"rehearsal.{name} is {value!r}; expected {expected}")
