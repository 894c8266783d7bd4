"""Commands that make a page about a run: as a file, or served while the run is at work."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import (
    STEER,
    USE,
    AsJson,
    RunOf,
    app,
    echo,
    exit_on_error,
    print_json,
    print_text,
    run_and_print,
    run_of,
)


@app.command(rich_help_panel=USE)
def report(
    run: RunOf = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write. Default: report.html in the run folder.")
    ] = None,
    json_out: AsJson = False,
) -> None:
    """Write the report page: labels, quality, speed, and cost."""
    run_dir = run_of(run)
    from pipeline.report import write_report

    run_and_print(write_report(run_dir, to), "report_lines", json_out=json_out)


@app.command(rich_help_panel=STEER)
def watch(
    run: RunOf = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port. 0 picks a free one.")] = 0,
    json_out: AsJson = False,
) -> None:
    """Serve the report page during a run."""
    import asyncio
    from contextlib import suppress

    from pipeline.report import watch as serve

    run_dir = run_of(run, at_work=True)

    def ready(address: str) -> None:
        if json_out:
            print_json({"address": address})
        else:
            print_text(f"The report of {run_dir}: {address}")
            echo("It renews itself, for a browser on this machine only. Ctrl-C ends it.")

    def ended() -> None:
        echo("The run has ended. The page is served until Ctrl-C.")

    def until_interrupted() -> None:
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(run_dir, port=port, ready=ready, ended=ended))

    exit_on_error(until_interrupted)
