"""Commands that look: at a run, at a config."""

import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from pipeline.cli.application import (
    STEER,
    AsJson,
    RunOf,
    Sets,
    Target,
    app,
    config_app,
    exit_on_error,
    print_json,
    print_result,
    print_text,
    run_and_print,
    run_async,
    run_of,
    settings_of,
)


@app.command(rich_help_panel=STEER)
def status(
    run: RunOf = None,
    json_out: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until the run has ended or you press Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between updates.", metavar="S")] = 1.0,
) -> None:
    """Show the state of a run, during the run or afterward."""
    run_dir = run_of(run)

    def read_status() -> Coroutine[Any, Any, Any]:
        from pipeline import runner

        return runner.status(run_dir)

    if watch:
        exit_on_error(lambda: _watch(read_status, json_out, every_s))
        return
    run_and_print(read_status(), "status_lines", json_out=json_out)


def _watch(read_status: Callable[[], Coroutine[Any, Any, Any]], json_out: bool, every_s: float) -> None:
    """Ctrl-C ends the watching only, so it is no failure."""
    import asyncio
    import signal
    from contextlib import suppress

    from pipeline import codec
    from pipeline.cli.status_watch import watch
    from pipeline.terminal import printable_json

    is_ending = False

    def end(_number: int, _frame: Any) -> None:
        nonlocal is_ending
        is_ending = True
        raise KeyboardInterrupt

    def read_once() -> Any:
        if is_ending:  # it came where an exception is lost, as in a loop that was just ending
            raise KeyboardInterrupt
        return asyncio.run(read_status())

    to_text = (lambda facts: printable_json(codec.dumps(facts).decode())) if json_out else None
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, end)
        watch(read_once, sys.stdout, every_s=every_s, to_text=to_text)


@app.command(rich_help_panel=STEER)
def verify(
    run: RunOf = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Do not read the input again.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also read the addresses and databases that the run names.")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Verify a run from its files.

    The command checks that rows in = labelled + rejected + failed + pending, and that each key occurs once.
    """
    run_dir = run_of(run)
    from pipeline import runner

    report = run_async(runner.verify(run_dir, read_input=not no_input, remote=remote))
    print_result(report, lambda _: report.lines(), json_out=json_out)
    raise typer.Exit(0 if report.ok else 1)


@config_app.command("show")
def config_show(config: Target = None, sets: Sets = None, json_out: AsJson = False) -> None:
    """Print every value and its source as TOML. Secrets are shown only as set or not set."""
    settings = settings_of(config, sets)
    from pipeline.settings import explain, to_toml

    if json_out:
        print_json({row.key: {"value": row.value, "origin": row.origin} for row in explain(settings)})
    else:
        print_text(to_toml(settings).removesuffix("\n"))
