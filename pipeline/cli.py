"""The command line: words -> Settings -> one call. No logic; everything but typer is imported when it is needed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.stats import RunSummary

_T = TypeVar("_T")

EXIT_CODES = """
Exit codes: 0 all records labelled · 1 finished, some records have no label · 2 cannot start ·
3 stopped early, the same command resumes · 130 interrupted, the same command resumes.
"""

app = typer.Typer(
    name="labelpipe",
    help="Turn a large file of records into training data: one function call a record, under rate limits, "
    "into a CSV that can be trusted. The same command resumes after anything.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at a config.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")

Config = Annotated[Path, typer.Argument(help="The config, a TOML file.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: --set limits.concurrency=8", metavar="KEY=VALUE"),
]
Input = Annotated[str | None, typer.Option("--input", help="Short for --set input.path=...")]
Output = Annotated[str | None, typer.Option("--output", help="Short for --set output.dir=...")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N records.", metavar="N")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder, like runs/sentiment.", show_default=False)]
Relabel = Annotated[bool, typer.Option("--relabel", help="Label records again that a change touches.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep what is there although something changed.")]


def _version(wanted: bool) -> None:
    if wanted:
        from pipeline import __version__

        typer.echo(f"labelpipe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before a command."""


@app.command()
def init(
    path: Annotated[str, typer.Argument(help="The file to label.", show_default=False)],
    to: Annotated[Path | None, typer.Option("--to", help="Where the config goes; default config/NAME.toml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
) -> None:
    """Look at a file and write a config to edit."""
    from pipeline.runner import write_config

    target = _guarded(lambda: asyncio.run(write_config(path, to, force=force)))
    _say(f"Wrote {target}. Look at it, fill in the labels, then:")
    _say(f"  labelpipe check   {target}")
    _say(f"  labelpipe preview {target} -n 5")
    _say(f"  labelpipe run     {target}")


@app.command()
def check(
    config: Config,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the server about key and model.")] = False,
    json_out: AsJson = False,
) -> None:
    """Find everything that can be wrong before a cent is spent."""
    settings = _settings(config, sets, input_path, output_dir)

    async def look() -> Any:
        from pipeline.runner import check as look_at

        return await look_at(settings, online=not offline)

    checks = _run(look())
    from pipeline.runner import check_lines

    if json_out:
        _print_json([{"name": one.name, "ok": one.ok, "detail": one.detail} for one in checks])
    else:
        _show("\n".join(check_lines(checks)))
    raise typer.Exit(2 if any(one.ok is False for one in checks) else 0)


@app.command()
def preview(
    config: Config,
    number: Annotated[int, typer.Option("-n", min=1, help="How many records.")] = 5,
    sets: Sets = None,
    input_path: Input = None,
    json_out: AsJson = False,
) -> None:
    """Label a few records and show them; writes nothing into the run."""
    settings = _settings(config, sets, input_path)

    async def look() -> Any:
        from pipeline.runner import preview as look_at

        return await look_at(settings, number)

    seen = _run(look())
    from pipeline.runner import preview_facts, preview_lines

    if json_out:
        _print_json(preview_facts(seen))
    else:
        _show("\n".join(preview_lines(seen)))
    raise typer.Exit(3 if seen.stopped else 0)


@app.command()
def run(
    config: Config,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    limit: Limit = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old folder is moved aside.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    relabel: Relabel = False,
    keep: Keep = False,
    json_out: AsJson = False,
) -> None:
    """Label the input; the same command resumes."""
    settings = _settings(config, sets, input_path, output_dir, limit)
    if fresh:
        _start_over(settings, yes=yes)
    _label(settings, json_out, relabel=relabel, keep=keep)


@app.command()
def retry(
    config: Config,
    only: Annotated[
        str | None, typer.Option("--only", help="Codes, like timeout,invalid_label; default: all without a label.")
    ] = None,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    limit: Limit = None,
    json_out: AsJson = False,
) -> None:
    """Label failed and rejected records again."""
    settings = _settings(config, sets, input_path, output_dir, limit)
    codes = frozenset(code.strip() for code in only.split(",") if code.strip()) if only else frozenset[str]()
    _label(settings, json_out, retry=True, retry_codes=codes)


@app.command()
def replay(config: Config, sets: Sets = None, output_dir: Output = None, json_out: AsJson = False) -> None:
    """Read the kept answers again (a mended callback, other columns) and write the files anew; no call is made."""
    settings = _settings(config, sets, None, output_dir)

    async def again() -> RunSummary:
        from pipeline.runner import replay as read_again

        return await read_again(settings)

    _finish(_run(again()), json_out)


@app.command()
def status(
    run_dir: RunFolder,
    json_out: AsJson = False,
) -> None:
    """Show a run, while it runs or after."""

    async def look() -> Any:
        from pipeline.runner import status as look_at

        return await look_at(run_dir)

    facts = _run(look())
    from pipeline.runner import status_lines

    if json_out:
        _print_json(facts)
    else:
        _show("\n".join(status_lines(facts)))


@app.command()
def verify(
    run_dir: RunFolder,
    no_input: Annotated[bool, typer.Option("--no-input", help="Do not read the input again.")] = False,
    json_out: AsJson = False,
) -> None:
    """Prove a run from its files: rows in = labelled + rejected + failed + pending, each key once."""

    async def look() -> Any:
        from pipeline.runner import verify as look_at

        return await look_at(run_dir, read_input=not no_input)

    report = _run(look())
    if json_out:
        _print_json(report.as_dict())
    else:
        _show("\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def rehearse(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8808,
    rpm: Annotated[float | None, typer.Option("--rpm", help="Requests a minute that it allows.")] = None,
    tpm: Annotated[float | None, typer.Option("--tpm", help="Tokens a minute that it allows.")] = None,
    rpd: Annotated[float | None, typer.Option("--rpd", help="Requests a day that it allows.")] = None,
    latency_ms: Annotated[float, typer.Option(help="Milliseconds that an answer takes.")] = 50.0,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", help="Share of calls that fail so: 503=0.02", metavar="KIND=SHARE")
    ] = None,
    outage: Annotated[
        list[str] | None, typer.Option("--outage", help="503 for all in these seconds: 10-40", metavar="FROM-TO")
    ] = None,
    quota_after: Annotated[int | None, typer.Option(help="Answers until the quota ends.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same faults and labels.")] = 0,
    books: Annotated[Path | None, typer.Option(help="Write each call as a JSON line to this file.")] = None,
) -> None:
    """Serve the local endpoint alone, for any OpenAI client. Its labels are simulated."""
    from pipeline.rehearsal import Rehearsal, RehearsalOptions, serve

    def ready(endpoint: Rehearsal) -> None:
        _say(f"Simulated labels at {endpoint.base_url} (any key will do). Ctrl-C ends it.")
        _say(f"  books:  {endpoint.root_url}/books")

    def options() -> RehearsalOptions:
        return RehearsalOptions(
            host=host,
            port=port,
            seed=seed,
            latency_ms=latency_ms,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            requests_per_day=rpd,
            faults=dict(_pair(text, "=", "--fault", "503=0.02") for text in fault or []),
            outages=[_span(text) for text in outage or []],
            quota_after=quota_after,
            models=(),
            books_path=books,
        )

    totals = _guarded(lambda: serve(options(), ready))
    _say(f"Served {totals.calls:,} calls: {totals.answered:,} answers, {totals.refused:,} refused.")


@config_app.command("show")
def config_show(config: Config, sets: Sets = None, json_out: AsJson = False) -> None:
    """Print each value and where it came from."""
    settings = _settings(config, sets)
    from pipeline.settings import explain

    rows = explain(settings)
    if json_out:
        _print_json({row.key: {"value": row.value, "origin": row.origin} for row in rows})
        return
    width = max(len(row.key) for row in rows)
    for row in rows:
        typer.echo(f"{row.key:<{width}}  {row.text}  ({row.origin})")


# -- between words and calls -------------------------------------------------------------------------------------


def _settings(
    config: Path,
    sets: list[str] | None,
    input_path: str | None = None,
    output_dir: str | None = None,
    limit: int | None = None,
) -> Settings:
    from pipeline.settings import Settings

    direct: dict[str, dict[str, Any]] = {}
    for section, key, value in (
        ("input", "path", input_path),
        ("output", "dir", output_dir),
        ("input", "limit", limit),
    ):
        if value is not None:
            direct.setdefault(section, {})[key] = value
    return _guarded(lambda: Settings.load(config, sets or [], **direct))


def _start_over(settings: Settings, *, yes: bool) -> None:
    from pipeline.runner import move_aside, what_is_there

    there = _run(what_is_there(settings))
    if not there:
        return
    if not yes:
        if not sys.stdin.isatty():
            _fail(f"{there} Nobody can be asked here: give --yes to start over.")
        typer.confirm(f"{there} Move it aside and start over?", abort=True, err=True)
    _say(f"Moved the old run to {_guarded(lambda: move_aside(settings))}.")


def _label(settings: Settings, json_out: bool, **wishes: Any) -> NoReturn:
    async def label() -> RunSummary:
        from pipeline.runner import Wishes, arun

        return await arun(settings, Wishes(**wishes))

    _finish(_run(label()), json_out)


def _finish(summary: RunSummary, json_out: bool) -> NoReturn:
    from pipeline.runner import closing_lines

    if json_out:
        _print_json(summary.as_dict())
    else:
        _say("\n".join(closing_lines(summary)))
    raise typer.Exit(summary.exit_code)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return _guarded(lambda: asyncio.run(work))


def _guarded(work: Callable[[], _T]) -> _T:
    """What `work` gives. Our errors become one message and their exit code; others are bugs and keep their trace."""
    from pipeline.errors import LabelpipeError, SetupError

    try:
        return work()
    except typer.Exit:
        raise
    except SetupError as error:
        _fail(str(error))
    except LabelpipeError as error:
        _fail(str(error), code=3)
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail("interrupted; the same command goes on", code=130)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError):
        import traceback

        _say(traceback.format_exc())
        _fail("this is a bug, above is where. What the ledger holds is safe; the same command goes on", code=3)


def _fail(message: str, *, code: int = 2) -> NoReturn:
    _say(f"labelpipe: {message}")
    raise typer.Exit(code)


def _pair(text: str, sign: str, option: str, example: str) -> tuple[str, float]:
    kind, _, share = text.partition(sign)
    try:
        return kind, float(share)
    except ValueError:
        _fail(f"{option} {text}: expected something like {option} {example}")


def _span(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    try:
        return float(start), float(end)
    except ValueError:
        _fail(f"--outage {text}: expected seconds like --outage 10-40")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _show(text: str) -> None:
    typer.echo(text)


def _print_json(value: Any) -> None:
    from pipeline import codec

    typer.echo(codec.dumps(value).decode())


def main() -> None:
    """The `labelpipe` command."""
    app()
