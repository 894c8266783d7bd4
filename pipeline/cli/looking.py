"""Commands that look: at a run, at a config; and the rehearsal endpoint alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.frame import (
    MORE,
    STEER,
    AsJson,
    RunOf,
    Sets,
    Target,
    app,
    config_app,
    fail,
    guarded,
    print_json,
    run_of,
    run_through,
    say,
    settings_of,
    show,
    show_found,
    show_through,
)

if TYPE_CHECKING:
    from pipeline.rehearsal import Rehearsal


@app.command(rich_help_panel=STEER)
def status(
    run: RunOf = None,
    json_out: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until the run has ended or you press Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between updates.", metavar="S")] = 1.0,
) -> None:
    """Show a run, while it runs or afterward."""
    run_dir = run_of(run)

    def look() -> Coroutine[Any, Any, Any]:
        from pipeline import runner

        return runner.status(run_dir)

    if watch:
        guarded(lambda: _watch(look, json_out, every_s))
        return
    show_through(look(), "status_lines", json_out=json_out)


def _watch(look: Callable[[], Coroutine[Any, Any, Any]], json_out: bool, every_s: float) -> None:
    """Ctrl-C ends the watching only, so it is no failure."""
    import asyncio
    import signal
    from contextlib import suppress

    from pipeline import codec
    from pipeline.cli.watching import watch
    from pipeline.terminal import shown_json

    asked_to_end = False

    def end(_number: int, _frame: Any) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        raise KeyboardInterrupt

    def look_once() -> Any:
        if asked_to_end:  # it came where an exception is lost, as in a loop that was just ending
            raise KeyboardInterrupt
        return asyncio.run(look())

    tell = (lambda facts: shown_json(codec.dumps(facts).decode())) if json_out else None
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, end)
        watch(look_once, sys.stdout, every_s=every_s, tell=tell)


@app.command(rich_help_panel=STEER)
def verify(
    run: RunOf = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Do not read the input again.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also read the addresses and databases that the run names.")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Prove a run from its files.

    It checks that rows in = labelled + rejected + failed + pending, with each key once.
    """
    run_dir = run_of(run)
    from pipeline import runner

    report = run_through(runner.verify(run_dir, read_input=not no_input, remote=remote))
    show_found(report, lambda _: report.lines(), json_out=json_out)
    raise typer.Exit(0 if report.ok else 1)


#: Options of `rehearse` that imitate a particular kind of server.
LatencyJitter = Annotated[
    float, typer.Option("--latency-jitter", help="How far single answers are from that: 0.3 is 70% to 130%.")
]
SlowShare = Annotated[float, typer.Option("--slow-share", help="Share of calls that take much longer.")]
SlowFactor = Annotated[float, typer.Option("--slow-factor", help="How many times as long these take.")]
MaxInFlight = Annotated[
    int | None, typer.Option("--max-in-flight", help="Above so many calls, slower; above twice as many, refused.")
]
BurstS = Annotated[
    float, typer.Option("--burst-s", help="Seconds' worth of a limit that may be used at once after a pause.")
]
NoLimitHeaders = Annotated[bool, typer.Option("--no-limit-headers", help="Do not tell the limits in the answers.")]
NoRetryAfter = Annotated[bool, typer.Option("--no-retry-after", help="Do not say how long to wait in refusals.")]
Poison = Annotated[
    list[str] | None,
    typer.Option("--poison", help="Calls with this text fail so: 'some text=hang'", metavar="TEXT=KIND"),
]
ContextTokens = Annotated[int, typer.Option("--context-tokens", min=1, help="A longer prompt is refused.")]


@app.command(rich_help_panel=MORE)
def rehearse(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port. 0 takes a free one.")] = 8808,
    rpm: Annotated[float | None, typer.Option("--rpm", help="Requests per minute that the endpoint allows.")] = None,
    tpm: Annotated[float | None, typer.Option("--tpm", help="Tokens per minute that the endpoint allows.")] = None,
    rpd: Annotated[float | None, typer.Option("--rpd", help="Requests per day that the endpoint allows.")] = None,
    latency_ms: Annotated[float, typer.Option(help="How long an answer takes, in milliseconds.")] = 50.0,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="Share of calls that fail this way: 503=0.02", metavar="KIND=SHARE"),
    ] = None,
    outage: Annotated[
        list[str] | None, typer.Option("--outage", help="Answer 503 during these seconds: 10-40", metavar="FROM-TO")
    ] = None,
    latency_jitter: LatencyJitter = 0.0,
    slow_share: SlowShare = 0.0,
    slow_factor: SlowFactor = 10.0,
    max_in_flight: MaxInFlight = None,
    burst_s: BurstS = 60.0,
    no_limit_headers: NoLimitHeaders = False,
    no_retry_after: NoRetryAfter = False,
    poison: Poison = None,
    context_tokens: ContextTokens = 128_000,
    quota_after: Annotated[int | None, typer.Option(help="Number of answers until the quota is used up.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same faults and labels.")] = 0,
    books: Annotated[Path | None, typer.Option(help="Append each call to this file as a JSON line.")] = None,
) -> None:
    """Serve the built-in endpoint for any OpenAI client. Its labels are simulated."""
    from pipeline.rehearsal import RehearsalOptions, serve

    def options() -> RehearsalOptions:
        return RehearsalOptions(
            host=host,
            port=port,
            seed=seed,
            latency_ms=latency_ms,
            latency_jitter=latency_jitter,
            slow_share=slow_share,
            slow_factor=slow_factor,
            max_in_flight=max_in_flight,
            burst_s=burst_s,
            headers=not no_limit_headers,
            retry_after=not no_retry_after,
            poison=dict(_poison(text) for text in poison or []),
            context_tokens=context_tokens,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            requests_per_day=rpd,
            faults=dict(_pair(text, "=", "--fault", "503=0.02") for text in fault or []),
            outages=[_span(text) for text in outage or []],
            quota_after=quota_after,
            models=(),
            books_path=books,
        )

    totals = guarded(lambda: serve(options(), _say_ready))
    say(f"Served {totals.calls:,} calls: {totals.answered:,} answers, {totals.refused:,} refused.")


def _say_ready(endpoint: Rehearsal) -> None:
    say(f"Simulated labels at {endpoint.base_url} (any key will do). Ctrl-C ends it.")
    say(f"  books:  {endpoint.root_url}/books")


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


def _poison(text: str) -> tuple[str, str]:
    words, sign, kind = text.rpartition("=")
    if not sign or not words:
        fail(f"--poison {text}: expected something like --poison 'some text=hang'")
    return words, kind


@config_app.command("show")
def config_show(config: Target = None, sets: Sets = None, json_out: AsJson = False) -> None:
    """Print every value and its source as TOML. Secrets are shown only as set or not set."""
    settings = settings_of(config, sets)
    from pipeline.settings import explain, to_toml

    if json_out:
        print_json({row.key: {"value": row.value, "origin": row.origin} for row in explain(settings)})
    else:
        show(to_toml(settings).removesuffix("\n"))
