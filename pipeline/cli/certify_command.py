"""The command that certifies labels."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.application import MEASURE, AsJson, RunOf, app, run_and_print, run_of

#: What is promised, about which label, and from which draw.
Error = Annotated[
    float | None, typer.Option("--error", help="The share of labels that may be wrong. Default: 0.05.", metavar="SHARE")
]
Confidence = Annotated[
    float | None,
    typer.Option("--confidence", help="The confidence of the certificate. Default: 0.95.", metavar="PROBABILITY"),
]
Column = Annotated[
    str | None, typer.Option("--column", help="The label field to certify, if there are several.", metavar="NAME")
]
Sample = Annotated[
    int | None, typer.Option("--sample", help="The size of the first draw. Default: as many as needed.", metavar="N")
]
Score = Annotated[
    str | None,
    typer.Option(
        "--score",
        help="The column that says how certain a label is. Default: agreement, then confidence.",
        metavar="NAME",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="The same seed draws the same records.")]
To = Annotated[
    Path | None,
    typer.Option("--to", help="Write the records to check now to this file.", metavar="FILE"),
]
Anew = Annotated[bool, typer.Option("--anew", help="Discard the current draw and its answers, and start over.")]
#: What is shown instead.
Shares = Annotated[bool, typer.Option("--shares", help="Show the share of each class, corrected by blind answers.")]
By = Annotated[str | None, typer.Option("--by", help="With --shares: split the shares by this field.", metavar="NAME")]
Pseudo = Annotated[
    Path | None,
    typer.Option("--pseudo", help="With --shares: write pseudo-outcomes for regressions to this CSV.", metavar="FILE"),
]


@app.command(rich_help_panel=MEASURE)
def certify(
    run: RunOf = None,
    error: Error = None,
    confidence: Confidence = None,
    column: Column = None,
    sample: Sample = None,
    score: Score = None,
    seed: Seed = None,
    to: To = None,
    anew: Anew = False,
    shares: Shares = False,
    by: By = None,
    pseudo: Pseudo = None,
    json_out: AsJson = False,
) -> None:
    """Certify that at most 5% of the labels are wrong, with few checks by people.

    The first call draws records, which people check with `labelpipe review`. Run the command again after they have
    answered. It then certifies the labels or names more records to check. The exit code is 0 once the labels are
    certified, and 1 before. The command does not call the model.
    """
    run_dir = run_of(run)
    if shares or by is not None or pseudo is not None:
        _show_shares(run_dir, column, by, confidence, pseudo, json_out=json_out)
        return

    async def certify_and_write() -> dict[str, Any]:
        from pipeline.measure import CertifyOptions
        from pipeline.measure import certify as certify_run
        from pipeline.review import refuse_existing_file, write_records

        facts = await certify_run(run_dir, CertifyOptions(error, confidence, column, seed, sample, score, anew))
        if to is not None and facts["records"]:
            refuse_existing_file(to)
            await write_records(run_dir, facts["records"], to, blind=facts["state"] == "draw")
            facts["file"] = str(to)
        return facts

    facts = run_and_print(certify_and_write(), "certify_lines", json_out=json_out)
    raise typer.Exit(0 if facts["certified"] else 1)


def _show_shares(
    run_dir: Path, column: str | None, by: str | None, confidence: float | None, pseudo: Path | None, *, json_out: bool
) -> None:
    from pipeline import measure

    options = measure.SharesOptions(column, by, confidence or 0.95, pseudo)
    run_and_print(measure.shares(run_dir, options), "shares_lines", json_out=json_out)
