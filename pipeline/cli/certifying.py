"""The command that certifies labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.frame import MEASURE, AsJson, RunOf, app, print_json, run_of, run_through, show


@app.command(rich_help_panel=MEASURE)
def certify(
    run: RunOf = None,
    error: Annotated[
        float | None,
        typer.Option("--error", help="The share of labels that may be wrong. Default: 0.05.", metavar="SHARE"),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", help="The probability with which no more are. Default: 0.95.", metavar="PROBABILITY"
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The label, where a record has several.", metavar="NAME")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", help="Draw N records at first. Default: as many as are needed.", metavar="N"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The same seed draws the same records.", show_default=False)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write the records that people have to check now to this file.", metavar="FILE"),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Give up a design that people have answered, and begin another one.")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Certify that few enough of the labels are wrong, after as few checks by people as that takes.

    The first call draws records. Give it again when they are answered: it says which others people have to check, or
    that the labels are certified. Exit code 0 if they are, else 1. No call of a model is made.
    """
    run_dir = run_of(run)

    async def look() -> dict[str, Any]:
        from pipeline.measure import CertifyOptions
        from pipeline.measure import certify as look_at
        from pipeline.review import refuse_existing, write_records

        if to is not None:
            refuse_existing(to)
        facts = await look_at(run_dir, CertifyOptions(error, confidence, column, seed, sample, anew))
        if to is not None and facts["records"]:
            await write_records(run_dir, facts["records"], to, blind=facts["state"] == "draw")
            facts["file"] = str(to)
        return facts

    facts = run_through(look())
    from pipeline.show import certify_lines

    if json_out:
        print_json(facts)
    else:
        show("\n".join(certify_lines(facts)))
    raise typer.Exit(0 if facts["certified"] else 1)
