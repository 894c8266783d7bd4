"""Commands that need no server: the rehearsal endpoint, and the demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.application import BEFORE, DOCS_URL, MORE, app, echo, exit_on_error, fail, run_async, settings_of

if TYPE_CHECKING:
    from pipeline.rehearsal import Rehearsal, RehearsalOptions
    from pipeline.stats import RunSummary

Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(help="The port. 0 picks a free one.")]
Rpm = Annotated[float | None, typer.Option("--rpm", help="Requests per minute that the endpoint allows.")]
Tpm = Annotated[float | None, typer.Option("--tpm", help="Tokens per minute that the endpoint allows.")]
Rpd = Annotated[float | None, typer.Option("--rpd", help="Requests per day that the endpoint allows.")]
LatencyMs = Annotated[float, typer.Option(help="How long an answer takes, in milliseconds.")]
Fault = Annotated[
    list[str] | None, typer.Option("--fault", help="Make a share of the calls fail: 503=0.02", metavar="KIND=SHARE")
]
Outage = Annotated[
    list[str] | None, typer.Option("--outage", help="Answer 503 during these seconds: 10-40", metavar="FROM-TO")
]
LatencyJitter = Annotated[
    float, typer.Option("--latency-jitter", help="Random variation of the latency: 0.3 means 70% to 130%.")
]
SlowShare = Annotated[float, typer.Option("--slow-share", help="Share of calls that take much longer.")]
SlowFactor = Annotated[float, typer.Option("--slow-factor", help="How many times longer these calls take.")]
MaxInFlight = Annotated[
    int | None, typer.Option("--max-in-flight", help="Slow down above this many calls; refuse above twice as many.")
]
BurstS = Annotated[
    float, typer.Option("--burst-s", help="How many seconds of a limit may be used at once after a pause.")
]
NoLimitHeaders = Annotated[bool, typer.Option("--no-limit-headers", help="Do not send x-ratelimit headers.")]
NoRetryAfter = Annotated[bool, typer.Option("--no-retry-after", help="Do not send retry-after headers.")]
Poison = Annotated[
    list[str] | None,
    typer.Option("--poison", help="Fail calls that contain this text: 'some text=hang'", metavar="TEXT=KIND"),
]
ContextTokens = Annotated[int, typer.Option("--context-tokens", min=1, help="Refuse prompts with more tokens.")]
BatchS = Annotated[float, typer.Option("--batch-s", min=0, help="How long a batch takes, in seconds.")]
BatchQueueTokens = Annotated[
    int | None, typer.Option("--batch-queue-tokens", min=1, help="Tokens that may be queued in batches at once.")
]
BatchFault = Annotated[
    list[str] | None,
    typer.Option(
        "--batch-fault", help="Make a share of batches or lines fail: batch_expired=0.1",
        metavar="KIND[=SHARE]",
    ),
]  # fmt: skip
FlexFull = Annotated[float, typer.Option("--flex-full", help="Share of flex calls that find no room.")]
FlexFullS = Annotated[
    float | None,
    typer.Option("--flex-full-s", help="Only for this many seconds after the first call. Default: always."),
]
FlexForm = Annotated[str, typer.Option("--flex-form", help="Status of these refusals: 429, or 498 as at Groq.")]
QuotaAfter = Annotated[int | None, typer.Option(help="Use up the quota after this many answers.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same faults and labels.")]
Books = Annotated[Path | None, typer.Option(help="Append each call to this file as a JSON line.")]


@app.command(rich_help_panel=MORE)
def rehearse(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 8808,
    rpm: Rpm = None,
    tpm: Tpm = None,
    rpd: Rpd = None,
    latency_ms: LatencyMs = 50.0,
    fault: Fault = None,
    outage: Outage = None,
    latency_jitter: LatencyJitter = 0.0,
    slow_share: SlowShare = 0.0,
    slow_factor: SlowFactor = 10.0,
    max_in_flight: MaxInFlight = None,
    burst_s: BurstS = 60.0,
    no_limit_headers: NoLimitHeaders = False,
    no_retry_after: NoRetryAfter = False,
    poison: Poison = None,
    context_tokens: ContextTokens = 128_000,
    batch_s: BatchS = 1.0,
    batch_queue_tokens: BatchQueueTokens = None,
    batch_fault: BatchFault = None,
    flex_full: FlexFull = 0.0,
    flex_full_s: FlexFullS = None,
    flex_form: FlexForm = "429",
    quota_after: QuotaAfter = None,
    seed: Seed = 0,
    books: Books = None,
) -> None:
    """Serve the built-in endpoint for any OpenAI client. Its labels are simulated."""
    from pipeline.rehearsal import serve

    totals = exit_on_error(lambda: serve(_options(context.params), _print_ready))
    echo(f"Served {totals.calls:,} calls: {totals.answered:,} answers, {totals.refused:,} refused.")


def _options(params: Mapping[str, Any]) -> RehearsalOptions:
    """Return the options from the command's arguments. Raises ConfigError."""
    from pipeline.rehearsal import RehearsalOptions

    words = dict(params)
    return RehearsalOptions(
        requests_per_minute=words.pop("rpm"),
        tokens_per_minute=words.pop("tpm"),
        requests_per_day=words.pop("rpd"),
        faults=dict(_pair(text, "=", "--fault", "503=0.02") for text in words.pop("fault") or []),
        outages=[_span(text) for text in words.pop("outage") or []],
        headers=not words.pop("no_limit_headers"),
        retry_after=not words.pop("no_retry_after"),
        poison=dict(map(_poison, words.pop("poison") or [])),
        batch_faults=dict(map(_batch_fault, words.pop("batch_fault") or [])),
        books_path=words.pop("books"),
        models=(),
        **words,
    )


def _print_ready(endpoint: Rehearsal) -> None:
    echo(f"Simulated labels at {endpoint.base_url} (any key will do). Ctrl-C ends it.")
    echo(f"  books:  {endpoint.root_url}/books")


def _poison(text: str) -> tuple[str, str]:
    words, sign, kind = text.rpartition("=")
    if not sign or not words:
        fail(f"--poison {text}: expected something like --poison 'some text=hang'")
    return words, kind


def _batch_fault(text: str) -> tuple[str, float]:
    """Parse a kind with its share; without a share, all batches have the fault."""
    return _pair(text if "=" in text else f"{text}=1", "=", "--batch-fault", "batch_expired=0.1")


def _pair(text: str, sign: str, option: str, example: str) -> tuple[str, float]:
    kind, _, share = text.partition(sign)
    try:
        return kind, float(share)
    except ValueError:
        fail(f"{option} {text}: expected something like {option} {example}")


def _span(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    try:
        return float(start), float(end)
    except ValueError:
        fail(f"--outage {text}: expected seconds like --outage 10-40")


# -- the demo ----------------------------------------------------------------------------------------------------------


_HEAD = """This demo labels 300 short reviews without a key and at no cost. The built-in
endpoint answers like a real one, with rate limits and occasional failures.
The texts and the config are in {folder}/.
"""
_AFTER = """
With your own file (CSV, JSON Lines, Parquet, ...) and your key in OPENAI_API_KEY:
  labelpipe init    FILE           reads it and writes config/NAME.toml; put in your labels
  labelpipe check   CONFIG         finds mistakes before you spend anything
  labelpipe preview CONFIG -n 5    labels five records and shows them
  labelpipe run     CONFIG         labels the whole file; the same command resumes
For other servers and everything else, see {docs}"""


@app.command(rich_help_panel=BEFORE)
def demo(to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path("labelpipe-demo")) -> None:
    """Run everything on sample texts, without a key and at no cost."""
    from pipeline.scaffold import first_rows, write_demo
    from pipeline.show import closing_lines

    config = exit_on_error(lambda: write_demo(to))
    echo(_HEAD.format(folder=to))
    summary, report = run_async(_run_and_verify(config))
    echo("\n".join(closing_lines(summary)))
    echo("\n".join(["", f"The first rows of {summary.run_dir}/labels.csv:", *first_rows(summary.run_dir), ""]))
    echo(report.lines()[-1])
    echo(_AFTER.format(docs=DOCS_URL))
    raise typer.Exit(summary.exit_code if report.ok else 1)


async def _run_and_verify(config: Path) -> tuple[RunSummary, Any]:
    from pipeline.report import after_run
    from pipeline.runner import RunOptions, arun, verify

    # Whatever the environment sets for other runs, the demo calls no server that costs money.
    settings = settings_of(config, ["model.base_url=rehearsal"])
    summary = await arun(settings, RunOptions(command=str(config), after=after_run))
    return summary, await verify(summary.run_dir)
