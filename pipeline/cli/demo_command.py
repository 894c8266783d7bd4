"""The demo: a whole run on sample texts, with neither key nor cost, and what to do after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.application import BEFORE, DOCS_URL, app, echo, exit_on_error, run_async, settings_of

if TYPE_CHECKING:
    from pipeline.stats import RunSummary

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

    # Whatever the environment says of other runs: this one asks nobody who wants money.
    settings = settings_of(config, ["model.base_url=rehearsal"])
    summary = await arun(settings, RunOptions(command=str(config), after=after_run))
    return summary, await verify(summary.run_dir)
