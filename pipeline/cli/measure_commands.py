"""Commands that measure labels: with gold, another run, a new prompt, or a certificate."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.application import (
    MEASURE,
    AsJson,
    Output,
    RunOf,
    Sets,
    Target,
    app,
    echo,
    fail,
    importing,
    run_and_print,
    run_of,
    settings_of,
)

Gold = Annotated[
    str | None,
    typer.Option(
        "--gold",
        help="A CSV or JSONL file with the records' keys and the right labels. Default: a field of the input.",
        metavar="FILE",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="A gold column. Default: columns named like a label field.", metavar="NAME"),
]
Field = Annotated[
    list[str] | None,
    typer.Option("--field", help="The label field that --column belongs to.", metavar="NAME"),
]
Ordered = Annotated[
    list[str] | None,
    typer.Option("--ordered", help="A label field whose values are listed in order.", metavar="NAME"),
]
GoldSets = Annotated[
    list[str] | None,
    typer.Option("--set", help="How the gold file is read: --set input.encoding=cp1252", metavar="KEY=VALUE"),
]


@contextmanager
def add_read_hint(command: list[str], sets: Sequence[str] | None) -> Iterator[None]:
    """Add the command that answers a reader's question about a gold file to the error."""
    from pipeline.errors import InputError
    from pipeline.scaffold import command_with_answer

    try:
        yield
    except InputError as error:
        again = command_with_answer(str(error), ["labelpipe", *command], sets or [])
        if again is None:
            raise
        raise InputError(f"{error}\nTo set it for the gold file: {again}") from error


@app.command(rich_help_panel=MEASURE)
def evaluate(
    run: RunOf = None,
    gold: Gold = None,
    column: Column = None,
    field: Field = None,
    disagreements: Annotated[
        Path | None,
        typer.Option("--disagreements", help="Write the records that differ from gold to this CSV.", metavar="FILE"),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            "--confidence", help="The label field with the model's confidence. Default: confidence.", metavar="NAME"
        ),
    ] = None,
    ordered: Ordered = None,
    sets: GoldSets = None,
    without: Annotated[
        Path | None,
        typer.Option("--without", help="Leave out the records whose keys are in this file.", metavar="FILE"),
    ] = None,
    json_out: AsJson = False,
) -> None:
    """Compare the labels of a run with gold labels.

    The command makes no calls and saves the figures in the run folder. You can use it during a run.
    """
    run_dir = run_of(run)

    async def work() -> Any:
        with importing():
            from pipeline import measure

        options = measure.EvaluateOptions(
            column or (), field or (), disagreements, confidence, ordered or (), sets or (), json_out, without
        )
        with add_read_hint(["evaluate", str(run_dir), *(["--gold", gold] if gold else [])], sets):
            return await measure.evaluate(run_dir, gold, options)

    run_and_print(work(), "evaluation_lines", json_out=json_out)


@app.command(rich_help_panel=MEASURE)
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run folder, or its config.", metavar="RUN_A")],
    run_b: Annotated[Path, typer.Argument(help="Another run of the same records.", metavar="RUN_B")],
    gold: Gold = None,
    column: Column = None,
    field: Field = None,
    differences: Annotated[
        Path | None, typer.Option("--differences", help="Write the records that differ to this CSV.", metavar="FILE")
    ] = None,
    ordered: Ordered = None,
    sets: GoldSets = None,
    json_out: AsJson = False,
) -> None:
    """Compare the labels of two runs with each other and with gold labels.

    The command makes no calls. You can use it during a run.
    """
    runs = run_of(run_a), run_of(run_b)

    async def work() -> Any:
        with importing():
            from pipeline import measure

        options = measure.CompareOptions(column or (), field or (), differences, ordered or (), sets or (), json_out)
        with add_read_hint(["compare", *map(str, runs), *(["--gold", gold] if gold else [])], sets):
            return await measure.compare(*runs, gold, options)

    run_and_print(work(), "comparison_lines", json_out=json_out)


@app.command("try", rich_help_panel=MEASURE)
def try_config(
    config: Target = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="The folder of the run to compare with.", metavar="RUN")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many records to label.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed draws other records.")] = 0,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Label records again that an earlier trial has labeled.")
    ] = False,
    differences: Annotated[
        Path | None, typer.Option("--differences", help="Write the records that differ to this CSV.", metavar="FILE")
    ] = None,
    sets: Sets = None,
    output_dir: Output = None,
    json_out: AsJson = False,
) -> None:
    """Label some records of a run with another config and show what changes.

    The command makes calls. It keeps the answers, so a run in the same folder does not pay for them again.
    """
    if against is None:
        fail("name the run to compare with: --against runs/NAME")
    old = run_of(against)
    old = old if old.is_absolute() or config is None or not config.is_dir() else old.absolute()
    settings = settings_of(config, sets, output_dir=output_dir)

    from pipeline import measure

    options = measure.TryOptions(number, seed, relabel, differences, quiet=json_out)
    trial = measure.try_config(settings, old, options, tell=lambda text: echo(f"labelpipe: {text}"))
    facts = run_and_print(trial, "trial_lines", json_out=json_out)
    raise typer.Exit(facts["tried"]["exit_code"])


# -- certificates ------------------------------------------------------------------------------------------------------


#: Options for the promise, the label, and the draw.
Error = Annotated[
    float | None, typer.Option("--error", help="The share of labels that may be wrong. Default: 0.05.", metavar="SHARE")
]
Confidence = Annotated[
    float | None,
    typer.Option("--confidence", help="The confidence of the certificate. Default: 0.95.", metavar="PROBABILITY"),
]
LabelColumn = Annotated[
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
#: Options to show shares instead.
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
    column: LabelColumn = None,
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
